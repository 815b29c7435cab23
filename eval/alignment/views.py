"""Batches of views of scenes in memory, as `AVSATask` and the evaluation take them. The geometry is the product's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avssl.models.front_ends import BEAMS
from avssl.spatial.ambisonics import project, rotate
from avssl.spatial.config import ViewConfig
from avssl.spatial.draw import draw_views
from avssl.spatial.hear import hear
from avssl.spatial.views import see
from eval.alignment.scenes import COLUMNS_A_FRAME, FRAMES, HEARD_FRAMES, SIDE_PX, Scenes, decibels
from eval.alignment.study import Hearing

BEFORE = (HEARD_FRAMES - FRAMES) // 2  # frames that are heard before the first that is seen


class Draw(NamedTuple):
    """K looks at one scene: viewpoints [K, 5] in degrees, mirrored or not [K], and the frame [K] at which each's sound
    begins; its pictures are in the middle of that."""

    view_deg: np.ndarray
    flip: np.ndarray
    frame: np.ndarray


def views_of(scenes: Scenes, random: np.random.Generator, config: ViewConfig) -> Draw:
    """Several views of one moment, all at random."""
    drawn = draw_views(random, config)
    moment = random.integers(scenes.video.shape[1] - HEARD_FRAMES + 1)
    return Draw(drawn["view_deg"], drawn["view_flip"], np.full(config.views, moment))


def moments_of(scenes: Scenes, random: np.random.Generator, config: ViewConfig, moments: int) -> Draw:
    """Several moments of one view, which do not overlap. `config.views` is 1."""
    drawn = draw_views(random, config)
    places = random.permutation(scenes.video.shape[1] // HEARD_FRAMES)[:moments]
    return Draw(drawn["view_deg"].repeat(moments, 0), drawn["view_flip"].repeat(moments, 0), places * HEARD_FRAMES)


def seen(scenes: Scenes, rows: Sequence[int], draws: Sequence[Draw]) -> Tensor:
    """Pictures [B, K, 3, FRAMES, SIDE_PX, SIDE_PX] about -2 to 2."""
    views, flips, frames = joined(draws)
    each = [
        scenes.video[row, frame + BEFORE : frame + BEFORE + FRAMES]
        for row, some in zip(rows, frames.tolist(), strict=True)
        for frame in some
    ]
    single = views.flatten(0, 1)[:, None], flips.flatten()[:, None]
    pictures = see(torch.from_numpy(np.stack(each)), single[0], (SIDE_PX, SIDE_PX), flips=single[1])
    return pictures.unflatten(0, flips.shape).squeeze(2).float().div_(64).sub_(2).permute(0, 1, 5, 2, 3, 4)


def heard(
    scenes: Scenes, rows: Sequence[int], draws: Sequence[Draw], hearing: Hearing, turns: Tensor | None = None
) -> Tensor:
    """Log mel spectrograms [B, K, C, HEARD_FRAMES * COLUMNS_A_FRAME, BANDS] of mean 0 and deviation 1 (of W).

    turns [B, 3, 3]: the sound scenes are turned by so much first. How a view's channels are made of W, Y, Z, X is what
    the product's own functions make of four unit channels.
    """
    views, flips, frames = joined(draws)
    length = HEARD_FRAMES * COLUMNS_A_FRAME
    each = [
        scenes.power[row, start : start + length]
        for row, some in zip(rows, (frames * COLUMNS_A_FRAME).tolist(), strict=True)
        for start in some
    ]
    unit = torch.eye(4).expand(len(rows), 4, 4)
    if turns is not None:
        unit = rotate(unit, turns)
    channels = hear(
        unit, views, flips=flips, hearing="ambisonics" if hearing == "tetrahedral" else hearing
    )  # [B, K, C, 4]
    if hearing == "tetrahedral":
        channels = project(channels, BEAMS)
    found = decibels(torch.from_numpy(np.stack(each)), channels.flatten(0, 1)).unflatten(0, flips.shape)
    return (found - scenes.level.mean_db) / scenes.level.std_db


def joined(draws: Sequence[Draw]) -> tuple[Tensor, Tensor, Tensor]:
    """Viewpoints [B, K, 5], flips [B, K], first frames [B, K]."""
    views, flips, frames = (torch.from_numpy(np.stack(parts)) for parts in zip(*draws, strict=True))
    return views, flips, frames
