"""Ambisonic channels as files hold them, from and to the ambiX of `avssl.spatial.ambisonics`. The name is always given:
nothing in the samples tells one from another.

| name | channels | normalisation |
| --- | --- | --- |
| `ambix` | ACN: W Y Z X … | SN3D |
| `n3d` | ACN | N3D: SN3D times √(2l + 1) |
| `fuma` | W X Y Z R S T U V K L M N O P Q, up to the third order | maxN, W at 1/√2 |
| `youtube` | X Y W 0 Z 0: the 6-channel AAC of YouTube's 360° clips as FFmpeg decodes it (in 5.1 order) | SN3D |
"""

from __future__ import annotations

import functools
import math
from typing import get_args

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.spatial.ambisonics import order_of
from avssl.spatial.config import AmbisonicFormat

_FUMA_PLACE = (0, 2, 3, 1, 8, 6, 4, 5, 7, 15, 13, 11, 9, 10, 12, 14)  # of each ACN channel
_FUMA_GAIN = (
    (math.sqrt(1 / 2),) + (1.0,) * 3 + (2 / math.sqrt(3),) * 2 + (1.0,) + (2 / math.sqrt(3),) * 2
    + (math.sqrt(8 / 5), 3 / math.sqrt(5), math.sqrt(45 / 32), 1.0, math.sqrt(45 / 32), 3 / math.sqrt(5))
    + (math.sqrt(8 / 5),)
)  # fmt: skip
_YOUTUBE_PLACE, _YOUTUBE_CHANNELS = (2, 1, 4, 0), 6  # of W, Y, Z, X


def to_ambix(sound: Tensor, layout: AmbisonicFormat) -> Tensor:
    """Channels [..., C', S] as the file has them -> [..., (order + 1)², S]. Raises UsageError where they do not fit."""
    channels = sound.shape[-2]
    if layout == "youtube":
        if channels != _YOUTUBE_CHANNELS:
            raise UsageError(f"ambisonics: youtube sound has {_YOUTUBE_CHANNELS} decoded channels, not {channels}")
        return sound[..., _YOUTUBE_PLACE, :]
    places, gains = _table(layout, order_of(channels))
    return sound[..., places, :] / torch.tensor(gains).to(sound)[:, None]


def from_ambix(sound: Tensor, layout: AmbisonicFormat) -> Tensor:
    """The inverse of `to_ambix`: [..., (order + 1)², S] -> [..., C', S]."""
    channels = sound.shape[-2]
    if layout == "youtube":
        if channels != 4:
            raise UsageError(f"ambisonics: youtube sound is first order, 4 channels, not {channels}")
        found = sound.new_zeros(*sound.shape[:-2], _YOUTUBE_CHANNELS, sound.shape[-1])
        found[..., _YOUTUBE_PLACE, :] = sound
        return found
    places, gains = _table(layout, order_of(channels))
    found = torch.empty_like(sound)
    found[..., places, :] = sound * torch.tensor(gains).to(sound)[:, None]
    return found


@functools.lru_cache(maxsize=32)
def _table(layout: str, order: int) -> tuple[list[int], list[float]]:
    """For each ACN channel: its place in the file, and its gain there over SN3D."""
    channels = (order + 1) ** 2
    if layout == "ambix":
        return list(range(channels)), [1.0] * channels
    if layout == "n3d":
        return list(range(channels)), [math.sqrt(2 * math.isqrt(n) + 1) for n in range(channels)]
    if layout != "fuma":
        names = ", ".join(get_args(AmbisonicFormat))
        raise UsageError(f"ambisonics: there is no format {layout!r}; choose one of {names}")
    if channels > len(_FUMA_PLACE):
        raise UsageError(f"ambisonics: fuma ends at the third order, 16 channels; these are {channels}")
    return list(_FUMA_PLACE[:channels]), list(_FUMA_GAIN[:channels])
