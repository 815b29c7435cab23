"""Plain tar files whose bytes depend on their content only, written so that every member's place is known."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from pathlib import Path

_BLOCK = tarfile.BLOCKSIZE
_MAX_MEMBER_BYTES = 8 * 1024**3 - 1  # what the size field of a plain (ustar) header holds


class TarWriter:
    """Writes members one after another; `offset` of a member is that of its data. Times, owners and modes are fixed."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.bytes = 0

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Append a member; returns its (offset, size) in bytes."""
        if len(data) > _MAX_MEMBER_BYTES:
            raise ValueError(f"{name}: {len(data)} bytes do not fit a tar header")
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mode = 0o644
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return offset, len(data)

    def finish(self) -> tuple[int, str]:
        """End the archive and bring it to disk; returns its (size in bytes, sha256)."""
        self._write(bytes(2 * _BLOCK))
        self._write(bytes(-self.bytes % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self.bytes, self._digest.hexdigest()

    def close(self) -> None:
        """Give up the file without ending the archive."""
        with contextlib.suppress(OSError):  # a full disk, again: what was to be flushed is given up
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)
