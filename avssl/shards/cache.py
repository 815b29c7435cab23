"""Files of remote shard folders on the local disk: shared by processes, whole or absent, limited in size.

A file is kept under the hash of its content, so mirrors and folders share it and it can never be out of date:

    SHA256             a whole file; its modification time says when it was last opened
    SHA256.BYTES.part  one on its way, or left by a killed process: the next one goes on after its last byte
    .SHA256.lock       held by the process that fetches it        .lock   held while room is made

Who has a file open holds a shared lock on it, and what is in use is never removed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from avssl import files
from avssl.errors import ConfigError, ShardError
from avssl.shards.fetch import fetch
from avssl.shards.open_file import OpenFile
from avssl.shards.options import CacheConfig

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

_HASH = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"([0-9a-f]{64})\.(\d+)\.part")


class ShardCache:
    """The cache of these options. Any number of processes of a machine may use one folder at a time."""

    def __init__(self, options: CacheConfig):
        if fcntl is None:
            raise ConfigError("data.shards: remote shards need file locks, which this system has not; copy them here")
        self.options = options
        self.folder = Path(options.dir) if options.dir is not None else _default_folder()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data.cache.dir: {self.folder} cannot be made ({error.strerror}); set another"
            ) from error

    def open(self, urls: Sequence[str], *, sha256: str, size: int | None) -> OpenFile:
        """The file of this hash, fetched from one of the addresses if it is not here. It stays while it is held.

        Raises ShardError if it cannot be fetched or there is no room for it.
        """
        if not _HASH.fullmatch(sha256):
            raise ShardError(f"{urls[0]}: its index has {sha256!r} where a sha256 belongs; restore the index")
        path = self.folder / sha256
        if (present := self._present(path, size)) is not None:
            return present
        with _locked(self.folder / f".{sha256}.lock"):
            if (present := self._present(path, size)) is not None:  # another process was faster
                return present
            part = self._reserve(sha256, size or 0)
            fetch(urls, part, self.options, sha256=sha256, size=size)
            file = OpenFile(part)
            os.fsync(file.descriptor)
            fcntl.flock(file.descriptor, fcntl.LOCK_SH)  # before it can be seen, so that it cannot be removed
            part.replace(path)
            file.path = path
            files.sync_directory(self.folder)
            return file

    def _present(self, path: Path, size: int | None) -> OpenFile | None:
        while True:
            try:
                file = OpenFile(path)
            except FileNotFoundError:
                return None
            fcntl.flock(file.descriptor, fcntl.LOCK_SH)
            found = os.fstat(file.descriptor)
            if found.st_nlink == 0:  # removed between opening and locking
                continue
            if size is not None and found.st_size != size:
                raise ShardError(f"{path}: has {found.st_size} bytes, not {size}; delete it, and it is fetched anew")
            os.utime(file.descriptor)
            return file

    def _reserve(self, sha256: str, size: int) -> Path:
        """The place of a file on its way, with room made for all of it."""
        part = self.folder / f"{sha256}.{size}.part"
        with _locked(self.folder / ".lock"):
            limit = int(self.options.size_gb * 1e9)
            kept = {path: bytes_ for path, bytes_ in self._entries() if path != part}
            excess = sum(kept.values()) + size - limit
            for path in sorted(kept, key=_last_used):
                if excess <= 0:
                    break
                if _removed_if_idle(path):
                    excess -= kept[path]
            if excess > 0:
                raise ShardError(
                    f"{self.folder}: no room for {size / 1e9:.3g} GB more, {(limit - size + excess) / 1e9:.3g} of"
                    f" {limit / 1e9:.3g} GB are in use; raise data.cache.size_gb, or set another data.cache.dir"
                )
            part.touch()
        return part

    def _entries(self) -> Iterator[tuple[Path, int]]:
        """Files and the bytes that they take, or will take when they have come."""
        for entry in os.scandir(self.folder):
            if on_its_way := _PART.fullmatch(entry.name):
                yield Path(entry.path), int(on_its_way[2])
            elif _HASH.fullmatch(entry.name):
                yield Path(entry.path), entry.stat().st_size


def _removed_if_idle(path: Path) -> bool:
    """Remove a whole file that nobody has open, or a part that nobody fetches."""
    part = _PART.fullmatch(path.name)
    guard = path.with_name(f".{part[1]}.lock") if part else path
    try:
        descriptor = os.open(guard, os.O_RDONLY)
    except FileNotFoundError:
        return not path.exists()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a part that has become whole
        return time.time()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes and threads that lock this file; the end of a process lets go."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avssl" / "shards"
