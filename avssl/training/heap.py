"""Memory of a CPU run that is given back and taken again at every step, kept instead."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let the process keep what tensors free, for the next ones.

    glibc returns large blocks to the system at once, which then has to clear each page again: some percent of a step,
    more for larger batches. The process afterwards never shrinks below its peak. Does nothing without glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
