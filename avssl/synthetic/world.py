"""A small rendered audio-visual world with ground truth: clips of moving, sounding shapes, written as real mp4 files.

It is not real video, and nothing measured on it says how a model fares on real video. It is for tests, for the demo,
and for experiments that need to know what is true: which clips have the wrong sound (`mismatch`), which clips are of
one class and therefore false negatives of each other (`class_weights`, `variation`).

    write_world(WorldConfig(clips=240, classes=8, mismatch=0.3), "world")

writes `world/CLASS/NNNNNN.mp4` and `world/world.jsonl`, one row a clip (`truth_row`), a list that
`avssl-shards build` takes as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import ConfigError
from avssl.files import write_jsonl
from avssl.synthetic.world_picture import render_picture
from avssl.synthetic.world_scene import MAX_CLASSES, Scene, class_traits, draw_scene
from avssl.synthetic.world_sound import render_sound

MANIFEST = "world.jsonl"
ENCODER_OPTIONS = {"preset": "veryfast", "crf": "26"}


@dataclass(frozen=True)
class WorldConfig:
    """The knobs. A clip number looks and sounds the same in any world of the same seed that gives it the same class."""

    clips: int = 240
    classes: int = 8
    class_weights: tuple[float, ...] = ()  # relative frequency of each class; empty: all alike
    mismatch: float = 0.0  # share of clips whose sound is that of a clip of another class
    duration_s: float = 4.0
    fps: float = 16.0
    size_px: int = 96
    audio_rate_hz: int = 24_000
    variation: float = 1.0  # within a class: position, size, speed, colours, pitch, loudness
    noise: float = 1.0  # in picture and sound
    seed: int = 0

    def __post_init__(self) -> None:
        def check(right: bool, key: str, rule: str) -> None:
            if not right:
                raise ConfigError(f"world: {key} is {getattr(self, key)!r}; it must be {rule}")

        check(self.clips >= 1, "clips", "at least 1")
        check(1 <= self.classes <= MAX_CLASSES, "classes", f"from 1 to {MAX_CLASSES}")
        check(0 <= self.mismatch <= 1, "mismatch", "from 0 to 1")
        check(self.mismatch == 0 or self.classes > 1, "mismatch", "0 with a single class")
        check(self.duration_s > 0 and self.fps > 0, "duration_s", "positive, and fps too")
        check(self.size_px >= 16 and self.size_px % 2 == 0, "size_px", "even and at least 16")
        check(self.audio_rate_hz >= 8000, "audio_rate_hz", "at least 8000")
        check(self.variation >= 0 and self.noise >= 0, "variation", "at least 0, and noise too")
        weights_fit = not self.class_weights or (
            len(self.class_weights) == self.classes and min(self.class_weights) > 0
        )
        check(weights_fit, "class_weights", "empty or one positive number a class")


@dataclass(frozen=True)
class ClipTruth:
    """What is true of one clip: the class that is seen and the clip and class that are heard."""

    clip: int
    label: int
    sound_clip: int  # the clip whose sound it carries: itself unless mismatched
    sound_label: int

    @property
    def mismatched(self) -> bool:
        return self.sound_clip != self.clip

    @property
    def path(self) -> str:
        """Where the clip lies, relative to the world's folder."""
        return f"{class_traits(self.label).name}/{self.clip:06d}.mp4"


def plan_world(config: WorldConfig) -> list[ClipTruth]:
    """Who is what: labels in proportion to the weights, in random order; exactly round(mismatch * clips) wrong sounds.

    A wrong sound is that of a random clip of another class; that clip itself may still have its own.
    """
    random = np.random.default_rng(np.random.SeedSequence((config.seed, config.clips)))
    labels = random.permutation(np.repeat(np.arange(config.classes), _class_sizes(config)))
    sound_clips = np.arange(config.clips)
    wrong = random.choice(config.clips, round(config.mismatch * config.clips), replace=False)
    for clip in np.sort(wrong):
        others = np.flatnonzero(labels != labels[clip])
        if len(others) == 0:
            raise ConfigError("world: mismatch needs clips of at least two classes; render more clips")
        sound_clips[clip] = random.choice(others)
    return [
        ClipTruth(clip, int(labels[clip]), int(sound_clips[clip]), int(labels[sound_clips[clip]]))
        for clip in range(config.clips)
    ]


def _class_sizes(config: WorldConfig) -> np.ndarray:
    """Clips a class: the weights' proportions, rounded by largest remainder so that they add up."""
    weights = np.asarray(config.class_weights or np.ones(config.classes), float)
    exact = config.clips * weights / weights.sum()
    sizes = np.floor(exact).astype(int)
    sizes[np.argsort(sizes - exact, kind="stable")[: config.clips - sizes.sum()]] += 1
    return sizes


def render_clip(config: WorldConfig, truth: ClipTruth) -> tuple[np.ndarray, np.ndarray]:
    """The clip's frames [T, H, W, 3] uint8 at `config.fps` and its sound [1, S] float32 at `config.audio_rate_hz`."""
    frames = render_picture(
        _scene(config, truth.clip, truth.label),
        config.duration_s,
        config.fps,
        config.size_px,
        seed=config.seed,
        clip=truth.clip,
        noise=config.noise,
    )
    heard = _scene(config, truth.sound_clip, truth.sound_label)
    sound = render_sound(heard, config.duration_s, config.audio_rate_hz, seed=config.seed, clip=truth.sound_clip)
    return frames, sound


def truth_row(config: WorldConfig, truth: ClipTruth) -> dict[str, Any]:
    """The clip's line of the manifest: path, label, and what only the renderer knows."""
    seen = _scene(config, truth.clip, truth.label)
    heard = _scene(config, truth.sound_clip, truth.sound_label)
    return {
        "path": truth.path,
        "label": seen.traits.name,
        "rendered": True,
        "clip": truth.clip,
        "mismatched": truth.mismatched,
        "sound_clip": truth.sound_clip,
        "sound_label": heard.traits.name,
        "events_s": seen.events_within(config.duration_s),
        "sound_events_s": heard.events_within(config.duration_s),
    }


def write_world(
    config: WorldConfig,
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Render the world into `folder` and return the rows of its manifest, which is written last.

    The files are the same for any number of `workers` (processes). `advance` is called after each clip.
    """
    folder = Path(folder)
    plan = plan_world(config)
    for parent in {(folder / truth.path).parent for truth in plan}:
        parent.mkdir(parents=True, exist_ok=True)
    for _ in _write_clips(config, plan, folder, workers):
        advance()
    rows = [truth_row(config, truth) for truth in plan]
    write_jsonl(folder / MANIFEST, rows)
    return rows


def _write_clips(config: WorldConfig, plan: list[ClipTruth], folder: Path, workers: int) -> Iterator[None]:
    tasks = [(config, truth, folder) for truth in plan]
    if workers <= 1:
        yield from map(_write_clip, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_write_clip, tasks, chunksize=4)


def _write_clip(task: tuple[WorldConfig, ClipTruth, Path]) -> None:
    from avssl.media.encode import write_video

    config, truth, folder = task
    frames, sound = render_clip(config, truth)
    write_video(
        folder / truth.path,
        frames,
        config.fps,
        audio=sound,
        audio_rate_hz=config.audio_rate_hz,
        video_options=ENCODER_OPTIONS,
    )


def _scene(config: WorldConfig, clip: int, label: int) -> Scene:
    return draw_scene(config.seed, clip, label, config.duration_s, config.variation, config.noise)
