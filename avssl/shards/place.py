"""Where a shard folder lies: on a disk here, or behind one or several addresses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Protocol

from avssl.errors import ShardError
from avssl.shards import format as layout
from avssl.shards.open_file import OpenFile
from avssl.shards.options import CacheConfig


class Place(Protocol):
    """Gives the files of a folder. `name` is what messages call it."""

    name: str

    def index(self) -> dict[str, Any]:
        """The checked index.json."""

    def path(self, file: str) -> str:
        """A file of the folder, for messages."""

    def open(self, file: str, *, sha256: str, size: int | None) -> OpenFile:
        """A file of the folder, opened; ShardError if it cannot be had. Its content has this hash if it was fetched."""


class LocalPlace:
    """A folder on a disk."""

    def __init__(self, folder: Path):
        self.name, self.folder = str(folder), folder

    def index(self) -> dict[str, Any]:
        return layout.read_index(self.folder)

    def path(self, file: str) -> str:
        return str(self.folder / file)

    def open(self, file: str, *, sha256: str, size: int | None) -> OpenFile:
        try:
            return OpenFile(self.folder / file)
        except OSError as error:
            raise ShardError(f"{self.folder / file}: cannot be read ({error.strerror})") from error


class RemotePlace:
    """A folder behind addresses that all have the same files (mirrors); its files are fetched into a cache.

    addresses: one or several, with blanks between them.
    """

    def __init__(self, addresses: str, options: CacheConfig):
        from avssl.shards.cache import ShardCache

        self.addresses = [address.rstrip("/") for address in addresses.split()]
        self.name = self.addresses[0]
        self.cache = ShardCache(options)

    def index(self) -> dict[str, Any]:
        """index.json as it is there now: it is small, and nothing else says whether it is whole."""
        from avssl.shards.fetch import fetch

        with tempfile.TemporaryDirectory(prefix="avssl-") as folder:
            copy = Path(folder) / layout.INDEX
            fetch(self._urls(layout.INDEX), copy, self.cache.options, sha256=None, size=None)
            return layout.parse_index(copy.read_bytes(), self.path(layout.INDEX))

    def path(self, file: str) -> str:
        return f"{self.name}/{file}"

    def open(self, file: str, *, sha256: str, size: int | None) -> OpenFile:
        return self.cache.open(self._urls(file), sha256=sha256, size=size)

    def _urls(self, file: str) -> list[str]:
        return [f"{address}/{file}" for address in self.addresses]


def is_remote(folder: str) -> bool:
    return "://" in folder
