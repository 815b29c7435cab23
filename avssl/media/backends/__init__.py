"""Other decoders for `Media.frames_at`, behind one protocol. PyAV stays the default: it is fastest and checks most.

The guard, the limits, `info`, `iter_frames` and sound are PyAV's with every backend. A backend opens the file by
itself, once the guard has let it pass, and reports damage less exactly.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from avssl.errors import UsageError

BACKENDS = ("pyav", "decord", "torchcodec")


class FrameBackend(Protocol):
    """An open video."""

    def frames_at(self, times_s: Sequence[float], size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(RGB uint8 [T, H, W, 3] of `size_px`, times [T] at which they begin to be shown), on the stream's clock."""
        ...


def open_backend(name: str, source: Any, *, stored_px: tuple[int, int]) -> FrameBackend:
    """The named backend over `source` (path or bytes), whose pictures are stored at (height, width) `stored_px`."""
    if name not in BACKENDS[1:]:
        raise UsageError(f"there is no decoder {name!r}; choose one of {', '.join(BACKENDS)}")
    try:
        module = importlib.import_module(f"{__name__}.{name}_frames")
        return module.Backend(source, stored_px)
    except (ImportError, RuntimeError) as error:
        raise UsageError(f"the decoder {name} does not work here: {str(error).splitlines()[0]}") from None
