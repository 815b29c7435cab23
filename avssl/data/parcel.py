"""A batch on its way from a worker to the main process: one file without a name, in memory.

Torch would put each tensor into shared memory of its own, touch every page of it once to clear and once to fill it, and
open a connection for each. Here the worker writes all arrays to one file, which the main process maps: half the work.
"""

from __future__ import annotations

import mmap
import os
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch

_ALIGNMENT = 64


class Parcel:
    """Arrays in a file of their own. Pickling sends the file; unpickling gives a dict of tensors that map it."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._layout: list[tuple[str, str, tuple[int, ...], int]] = []  # name, type, shape, offset
        self._file = os.memfd_create("avssl-batch")
        end = 0
        for name, array in arrays.items():
            offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            self._layout.append((name, array.dtype.str, array.shape, offset))
            end = offset
            rest = np.ascontiguousarray(array).data.cast("B")
            while rest:
                written = os.pwrite(self._file, rest, end)
                rest, end = rest[written:], end + written
        self._size = end

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (reduction.DupFd(self._file), self._size, self._layout)

    def __del__(self) -> None:
        os.close(self._file)


def _open(file: Any, size: int, layout: list[tuple[str, str, tuple[int, ...], int]]) -> dict[str, torch.Tensor]:
    descriptor = file.detach()
    try:
        memory = mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)
    return {name: torch.from_numpy(np.ndarray(shape, dtype, memory, offset)) for name, dtype, shape, offset in layout}


def can_send() -> bool:
    """Whether this system has such files (Linux)."""
    return hasattr(os, "memfd_create")
