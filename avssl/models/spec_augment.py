"""SpecAugment: blank random stripes of a spectrogram, so that a network does not rest on one moment or band.

Source: Park et al. (arXiv 1904.08779), with the settings of PANNs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    x: Tensor, *, time_stripes: int = 2, time_width: int = 64, band_stripes: int = 2, band_width: int = 8
) -> Tensor:
    """[B, T, bands] with stripes of each sample set to 0; draws from torch's generator.

    A stripe's width is uniform in 0..width - 1 (and below the axis' length), its place uniform where it fits.
    """
    blank = _stripes(x, 1, time_stripes, time_width)[:, :, None] | _stripes(x, 2, band_stripes, band_width)[:, None]
    return x.masked_fill(blank, 0.0)


def _stripes(x: Tensor, dim: int, count: int, width: int) -> Tensor:
    """[B, length of dim] bool: inside one of `count` stripes."""
    length = x.shape[dim]
    drawn = torch.rand(2, len(x), count, 1, device=x.device)
    widths = (drawn[0] * min(width, length)).floor()
    begin = (drawn[1] * (length - widths + 1)).floor()
    place = torch.arange(length, device=x.device)
    return ((place >= begin) & (place < begin + widths)).any(dim=1)
