"""The clips of a world: rendered ones here, real ones by `eval.robustness.real`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avssl.synthetic.world import ClipTruth, WorldConfig, plan_world, render_clip
from eval.robustness.clips import FPS, RATE_HZ, STORED_PX, Clips, Level, make_clips
from eval.robustness.study import World

DURATION_S = 2.0
_HELD_OUT_SEEDS = 1000  # the held-out clips are those of another seed


class Parts(NamedTuple):
    train: Clips
    held_out: Clips


def load_world(world: World, seed: int) -> Parts:
    """Training and held-out clips; the same for every method."""
    if world.kind == "real":
        from eval.robustness.real import load_real

        return Parts(*load_real(world.mismatch, seed))
    train = _render(world, world.clips, world.mismatch, seed, None)
    return Parts(train, _render(world, world.held_out, 0.0, seed + _HELD_OUT_SEEDS, train.level))


def _render(world: World, clips: int, mismatch: float, seed: int, level: Level | None) -> Clips:
    config = WorldConfig(
        clips=clips,
        classes=world.classes,
        class_weights=tuple(world.class_weights),
        mismatch=mismatch,
        duration_s=DURATION_S,
        fps=FPS,
        size_px=STORED_PX,
        audio_rate_hz=RATE_HZ,
        variation=world.variation,
        noise=world.noise,
        seed=seed,
    )
    plan = plan_world(config)
    own = [render_clip(config, ClipTruth(truth.clip, truth.label, truth.clip, truth.label)) for truth in plan]
    return make_clips(
        np.stack([frames for frames, _ in own]),
        np.stack([sound[0] for _, sound in own]),
        np.array([truth.label for truth in plan]),
        np.array([truth.sound_clip for truth in plan]),
        level,
    )
