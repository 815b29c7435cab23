"""The bilinear kernel for uint8 clips in main memory, compiled by Numba: a value costs four reads and four products,
with no float copy of the source in between. `avssl.spatial.views` says what it computes and has the general form.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor


def remap(pictures: Tensor, positions: Tensor, source_px: Tensor, corner: float) -> Tensor:
    """uint8 [B, T, H, W, C] at positions (x, y) [B, K, h, w, 2] in [0, 1] -> uint8 [B, K, T, h, w, C].

    Weights have 15 bits, so that a value may differ by one from the rounded exact one. Uses as many threads as torch.
    """
    batch, frames, _, stride, channels = pictures.shape
    views, *size = positions.shape[1:-1]
    out = np.empty((batch, views, frames, int(np.prod(size)) * channels), np.uint8)
    sources = pictures.flatten(2).contiguous().numpy()
    places = positions.detach().float().flatten(2, -2).contiguous().numpy()
    sizes = source_px.tolist()
    kernel = _kernel(channels)

    def one(pair: tuple[int, int]) -> None:
        b, k = pair
        kernel(sources[b], places[b, k], *sizes[b], stride, np.float32(corner), out[b, k])

    pairs = itertools.product(range(batch), range(views))
    if torch.get_num_threads() == 1:
        list(map(one, pairs))
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(one, pairs))
    return torch.from_numpy(out).view(batch, views, frames, *size, channels)


@functools.cache
def _kernel(channels: int) -> Callable[..., None]:
    """The compiled loop for so many channels; known beforehand, the loop over them is unrolled."""
    import numba

    def fill(source, positions, height, width, stride, corner, out):
        """source [T, H * stride * C], positions [n, 2] -> out [T, n * C]."""
        for n in range(positions.shape[0]):
            x = positions[n, 0] * np.float32(width) - corner
            y = min(max(positions[n, 1] * np.float32(height) - corner, np.float32(0)), np.float32(height - 1))
            left, top = int(np.floor(x)), int(y)
            right, low = left + 1, min(top + 1, height - 1)
            across, down = x - np.float32(left), y - np.float32(top)
            if left < 0:  # positions reach from 0 to 1, so one turn is enough (and cheaper than a division)
                left += width
            if right >= width:
                right -= width
                left -= width * (left >= width)
            # Unsigned places spare the test for negative ones that NumPy's rules ask for.
            a, b = np.uint64((top * stride + left) * channels), np.uint64((top * stride + right) * channels)
            c, d = np.uint64((low * stride + left) * channels), np.uint64((low * stride + right) * channels)
            weight_d = np.int32(across * down * 32768 + 0.5)
            weight_b = np.int32(across * 32768 + 0.5) - weight_d
            weight_c = np.int32(down * 32768 + 0.5) - weight_d
            weight_a = np.int32(32768) - weight_b - weight_c - weight_d
            first = np.uint64(channels * n)
            for t in range(source.shape[0]):
                for channel in range(np.uint64(channels)):
                    total = (
                        np.int32(source[t, a + channel]) * weight_a
                        + np.int32(source[t, b + channel]) * weight_b
                        + np.int32(source[t, c + channel]) * weight_c
                        + np.int32(source[t, d + channel]) * weight_d
                    )
                    out[t, first + channel] = (total + np.int32(16384)) >> np.int32(15)

    compile_ = functools.partial(numba.njit, nogil=True, error_model="numpy")
    try:
        return compile_(cache=True)(fill)
    except RuntimeError:  # nowhere to keep the compiled code
        return compile_()(fill)
