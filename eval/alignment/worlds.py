"""The scenes of a world: rendered once, kept as files, and mapped into memory by every run."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from avssl.errors import UsageError
from avssl.files import write_atomic
from avssl.synthetic.scene360 import render_clip360
from avssl.synthetic.scene360_config import Scene360Config
from eval.alignment.chart import VARIABLE, load_chart
from eval.alignment.scenes import FPS, RATE_HZ, Level, Scenes, power
from eval.alignment.study import World

DURATION_S = 4.0
WIDTH_PX = 160
HELD_OUT_SEED = 1000
_PART = 50  # scenes that are rendered together


def render(world: World, folder: Path, pool: Executor, advance: Callable[[int], object] = lambda scenes: None) -> None:
    """Write the arrays of both parts into `folder`, unless they are there."""
    if world.kind == "chart":
        return
    for seed, scenes in ((0, world.scenes), (HELD_OUT_SEED, world.held_out)):
        missing = _paths(world, folder, seed)
        if all(path.exists() for path in missing):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        jobs = [(world, seed, range(at, min(at + _PART, scenes))) for at in range(0, scenes, _PART)]
        parts = []
        for part in pool.map(_render, *zip(*jobs, strict=True)):
            parts.append(part)
            advance(len(part[0]))
        for path, arrays in zip(missing, zip(*parts, strict=True), strict=True):
            write_atomic(path, functools.partial(np.save, arr=np.concatenate(arrays)))


def load(world: World, folder: Path) -> tuple[Scenes, Scenes]:
    """To train on and held out, from what `render` wrote."""
    if world.kind == "chart":
        if (found := load_chart()) is None:
            raise UsageError(f"world {world.name}: needs the chart clip, but {VARIABLE} names no folder of media")
        return found
    (video, train), (held_out_video, held_out) = (
        [np.load(path, mmap_mode="r") for path in _paths(world, folder, seed)] for seed in (0, HELD_OUT_SEED)
    )
    level = Level.of(train)
    return Scenes(video, train, level), Scenes(held_out_video, held_out, level)


def _paths(world: World, folder: Path, seed: int) -> list[Path]:
    return [folder / f"{world.digest}-{seed}-{part}.npy" for part in ("video", "power")]


def _render(world: World, seed: int, clips: range) -> tuple[np.ndarray, np.ndarray]:
    config = config_of(world, seed)
    rendered = [render_clip360(config, clip) for clip in clips]
    return np.stack([video for video, _ in rendered]), np.stack([power(sound) for _, sound in rendered])


def config_of(world: World, seed: int) -> Scene360Config:
    """What is rendered: part `seed` of a world."""
    photos: tuple[str, ...] = ()
    sounds = None
    if world.kind == "photos":
        if not (media := os.environ.get(VARIABLE)):
            raise UsageError(f"world {world.name}: needs photos and sounds, but {VARIABLE} names no folder of media")
        photos = tuple(str(path) for path in sorted((Path(media) / "panoramas").glob("*.jpg")))
        sounds = str(Path(media) / "sounds_fsdk10")
    return Scene360Config(
        clips=world.scenes,
        classes=world.classes,
        objects=world.objects,
        ambience_db=(-40.0, -30.0),
        latitude_deg=world.latitude_deg,
        spacing_deg=world.spacing_deg,
        panoramas=photos,
        sounds=sounds,
        duration_s=DURATION_S,
        fps=FPS,
        width_px=WIDTH_PX,
        audio_rate_hz=RATE_HZ,
        size=world.size,
        variation=world.variation,
        noise=world.noise,
        place=world.place,
        seed=seed,
    )
