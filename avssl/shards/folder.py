"""One opened shard folder: its index, its columns, and the bytes of its manifest and tars."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from avssl import files
from avssl.errors import ShardError
from avssl.shards import format as layout
from avssl.shards.columns import Columns, manifest_of
from avssl.shards.open_file import OpenFile
from avssl.shards.place import LocalPlace, Place

_OPEN_FILES = 256  # at most this many tars of a folder are open in a process
_HASHED_BYTES = 1 << 26  # larger local manifests and columns are hashed by `avssl-shards verify`, not when opened


class Folder:
    """A folder whose manifest belongs to its index. Safe to pickle, to fork and to use from several threads."""

    columns: Columns

    def __init__(self, place: Place):
        self.place = place
        self.index = place.index()
        self._keep_files()
        entry = self.index.get("columns")
        self._columns_file = self._open_columns(entry) if entry else None  # held: a cache keeps what is in use
        manifest = place.path(layout.MANIFEST)
        if self._columns_file is None:
            self.columns = Columns.of_manifest(
                self._manifest().path,
                rows=self.index["rows"],
                labels=self.index["labels"],
                sha256=self.index["manifest_sha256"],
                name=manifest,
            )
            return
        self.columns = Columns.map(self._columns_file.path)
        size = self._manifest().size()
        wrong_hash = size <= _HASHED_BYTES and _hash(self._manifest().path) != self.index["manifest_sha256"]
        if size != self.columns.lines[-1] or wrong_hash:
            raise ShardError(f"{manifest}: does not belong to {layout.INDEX}; restore it or build the shards again")

    def _open_columns(self, entry: dict[str, Any]) -> OpenFile | None:
        """The file of columns, or None if there is none of this manifest: then the manifest itself is read."""
        if isinstance(self.place, LocalPlace) and not (self.place.folder / layout.COLUMNS).exists():
            return None
        file = self.place.open(layout.COLUMNS, sha256=entry["sha256"], size=entry["bytes"])
        small = entry["bytes"] <= _HASHED_BYTES
        if file.size() != entry["bytes"] or (small and _hash(file.path) != entry["sha256"]):
            raise ShardError(
                f"{self.place.path(layout.COLUMNS)}: does not belong to {layout.INDEX}; restore it, or delete it and"
                f" run avssl-shards index {self.place.name}"
            )
        return file if manifest_of(file.path) == self.index["manifest_sha256"] else None

    def __len__(self) -> int:
        return len(self.columns.ids)

    def __getstate__(self) -> dict[str, Any]:
        opened = ("_manifest_file", "shard", "_columns_file")
        return {key: value for key, value in self.__dict__.items() if key not in opened}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._keep_files()

    def _keep_files(self) -> None:
        self._manifest_file: OpenFile | None = None
        self.shard = functools.lru_cache(_OPEN_FILES)(functools.partial(_open_shard, self.place, self.index["shards"]))

    def _manifest(self) -> OpenFile:
        if self._manifest_file is None:
            size = int(self.columns.lines[-1]) if hasattr(self, "columns") else None
            self._manifest_file = self.place.open(layout.MANIFEST, sha256=self.index["manifest_sha256"], size=size)
        return self._manifest_file

    def open_shard(self, number: int) -> OpenFile:
        """A tar, opened; fetched first if it is far away and not in the cache. `shard` is the same, and keeps some."""
        return _open_shard(self.place, self.index["shards"], number)

    def shard_name(self, number: int) -> str:
        return self.index["shards"][number]["name"] if 0 <= number < len(self.index["shards"]) else f"shard {number}"

    def total_bytes(self) -> int:
        """Of all its files that reading needs."""
        columns = self.index.get("columns") or {"bytes": 0}
        return int(self.columns.lines[-1]) + columns["bytes"] + sum(shard["bytes"] for shard in self.index["shards"])

    def record(self, row: int) -> dict[str, Any]:
        """The manifest's line of a row."""
        start, end = (int(place) for place in self.columns.lines[row : row + 2])
        name = self.place.path(layout.MANIFEST)
        line = self._manifest().read(start, end - start, name)
        try:
            record = json.loads(line)
            known = int(record["id"], 16) == self.columns.ids[row]
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise ShardError(f"{name}: line {row + 1} is not the one that was written; restore the file")
        return record

    def members(self, row: int) -> dict[str, tuple[int, int]]:
        """Offset and size of each member of a row, by extension."""
        places = {name: array[row] for name, array in sorted(self.columns.members.items())}
        return {name: (int(offset), int(size)) for name, (offset, size) in places.items() if offset >= 0}

    def read(self, row: int, place: tuple[int, int]) -> bytes:
        """The bytes of a member of a row."""
        shard = int(self.columns.shard[row])
        return self.shard(shard).read(*place, name=self.place.path(self.shard_name(shard)))


def _open_shard(place: Place, shards: list[dict[str, Any]], number: int) -> OpenFile:
    if not 0 <= number < len(shards):
        raise ShardError(f"{place.path(layout.MANIFEST)}: names shard {number} of {len(shards)}; restore the file")
    shard = shards[number]
    return place.open(shard["name"], sha256=shard["sha256"], size=shard["bytes"])


def write_columns(folder: Path, *, rows: int, labels: list[str], manifest_sha256: str) -> dict[str, Any]:
    """Write the columns beside the manifest; returns what index.json says of the file."""
    manifest = folder / layout.MANIFEST
    columns = Columns.of_manifest(manifest, rows=rows, labels=labels, sha256=manifest_sha256, name=str(manifest))
    return columns.write(folder / layout.COLUMNS, manifest_sha256)


def add_columns(folder: Path) -> dict[str, Any]:
    """Write the columns of a finished folder that has none, or whose were damaged, and name them in its index.json."""
    index = layout.read_index(folder)
    entry = write_columns(folder, rows=index["rows"], labels=index["labels"], manifest_sha256=index["manifest_sha256"])
    files.write_json(folder / layout.INDEX, index | {"columns": entry})
    return {"rows": index["rows"], **entry}


def concatenated(folders: list[Folder], name: str) -> np.ndarray:
    """A column over the rows of all folders; of a single one as it is, not copied."""
    parts = [getattr(folder.columns, name) for folder in folders]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
