"""Files that are opened in one place and read in another: by position, so that one descriptor serves many readers."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from avssl.errors import MediaError


@dataclass(frozen=True)
class HandedFile:
    """A regular file that is handed over open, to a process that must not open files itself."""

    descriptor: int
    name: str

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self.descriptor).st_size

    def reader(self) -> PositionedReader:
        """A file object of its own over the same open file."""
        return PositionedReader(self.descriptor)


class PositionedReader(io.RawIOBase):
    """Reads a descriptor, which stays open, from a position of its own."""

    def __init__(self, descriptor: int):
        self._descriptor, self._position = descriptor, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        data = os.pread(self._descriptor, size, self._position)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(1 << 20), b""))

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        if base + offset < 0:
            raise ValueError(f"negative place {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def open_regular(path: str | os.PathLike[str], name: str) -> int:
    """The descriptor of a regular file, opened for reading.

    Raises MediaError `unreadable` for what is not there, not allowed or not a regular file.
    """
    path = os.fspath(path)
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MediaError(name, "unreadable", f"cannot be opened, {why.lower()}") from None
    except OSError as error:
        if Path(path).is_socket() or not Path(path).is_file():
            raise MediaError(name, "unreadable", "is not a regular file") from None
        raise error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, device or socket"
        raise MediaError(name, "unreadable", f"is {kind}, not a regular file")
    return descriptor
