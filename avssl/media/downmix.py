"""From any channel layout to mono or stereo, by a fixed matrix that cannot clip.

Stereo follows ITU-R BS.775: left = FL + 0.707 FC + 0.707 (side and back left) (+ 0.707 x 0.707 back centre), the low
frequency channel left out; each row is divided by its sum, so that full scale in gives at most full scale out. Mono is
the mean of that left and right. One channel becomes two by copying. Of ambisonics the first channel (W, heard from all
around) alone is taken. Channels of unknown place: all weigh the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from avssl.media.types import Channels

_STEREO = ("FL", "FR")
_HALF = 0.5**0.5
_LEFT = {"FL": 1.0, "FC": _HALF, "SL": _HALF, "BL": _HALF, "FLC": 1.0, "BC": 0.5, "WL": _HALF, "TFL": _HALF,
         "TBL": _HALF, "TFC": 0.5, "TC": 0.5, "TBC": 0.5, "DL": 1.0, "SDL": _HALF, "TSL": _HALF}  # fmt: skip
_MIRROR = {"FL": "FR", "SL": "SR", "BL": "BR", "FLC": "FRC", "WL": "WR", "TFL": "TFR", "TBL": "TBR", "DL": "DR",
           "SDL": "SDR", "TSL": "TSR"}  # fmt: skip
_RIGHT = {_MIRROR.get(name, name): gain for name, gain in _LEFT.items()}


@functools.lru_cache(maxsize=64)
def matrix(channel_names: tuple[str, ...], channels: Channels) -> np.ndarray | None:
    """float32 [1 or 2, C] to multiply samples [C, S] with; None where they stay as they are."""
    count = len(channel_names)
    if channels == "all" or (channels == "mono" and count == 1) or (channels == "stereo" and channel_names == _STEREO):
        return None
    if channel_names[0].startswith("AMBI"):
        rows = np.eye(1, count).repeat(2, axis=0)
    elif all(name in _LEFT or name in _RIGHT or name.startswith("LFE") for name in channel_names):
        rows = np.array([[side.get(name, 0.0) for name in channel_names] for side in (_LEFT, _RIGHT)])
    else:
        rows = np.ones((2, count))
    if not rows.any(axis=1).all():  # one side has no channel, or there is only low frequency
        rows = np.ones((2, count))
    rows /= rows.sum(axis=1, keepdims=True)
    if channels == "mono":
        rows = rows.mean(axis=0, keepdims=True)
    return rows.astype(np.float32)


def downmix(samples: np.ndarray, channel_names: Sequence[str], channels: Channels) -> np.ndarray:
    """Samples [C, S] float32 with the named channels as `channels` wants them."""
    gains = matrix(tuple(channel_names), channels)
    return samples if gains is None else gains @ samples
