"""decord as a frame backend. Pictures come out in the stored orientation; the first video stream is read."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401  (imported after decord, a CUDA torch crashes the process)
import decord


class Backend:
    """See `FrameBackend`."""

    def __init__(self, source: Any, stored_px: tuple[int, int]):
        self._source = source
        self._readers: dict[tuple[int, int], Any] = {}
        reader = self._reader(stored_px)
        self._starts_s = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]

    def _reader(self, size_px: tuple[int, int]) -> Any:
        """decord scales while it decodes, to the size a reader was opened with."""
        if size_px not in self._readers:
            path = os.fspath(self._source) if isinstance(self._source, str | os.PathLike) else io.BytesIO(self._source)
            height, width = size_px
            self._readers = {size_px: decord.VideoReader(path, width=width, height=height, num_threads=1)}
        return self._readers[size_px]

    def frames_at(self, times_s: Sequence[float], size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        places = np.searchsorted(self._starts_s, np.asarray(times_s) + 5e-4, side="right") - 1
        places = np.clip(places, 0, len(self._starts_s) - 1)
        return self._reader(size_px).get_batch(places).asnumpy(), self._starts_s[places].astype(np.float64)
