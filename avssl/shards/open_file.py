"""A file that is read by offset, by threads and forked processes alike."""

from __future__ import annotations

import os
from pathlib import Path

from avssl.errors import ShardError


class OpenFile:
    """A descriptor that lives as long as somebody holds this object, so that one is never closed while it is read.

    `pread` keeps no position: the same descriptor serves threads and forked processes alike.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read(self, offset: int, size: int, name: str) -> bytes:
        """`size` bytes from `offset` on; ShardError with `name` if it ends before or cannot be read."""
        if offset < 0 or size < 0 or offset + size > self.size():  # before memory is taken for it
            raise ShardError(f"{name}: ends early; restore the file or build the shards again")
        try:
            data = os.pread(self.descriptor, size, offset)
            while 0 < len(data) < size:  # the kernel gives at most 2 GiB at once
                more = os.pread(self.descriptor, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise ShardError(f"{name}: cannot be read ({error.strerror})") from error
        if len(data) < size:
            raise ShardError(f"{name}: ends early; restore the file or build the shards again")
        return data
