"""Read samples of shard folders by row number, in any order."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import ShardError
from avssl.shards import format as layout

_OPEN_FILES = 256  # at most this many shards of one set are open in a process


class ShardSet:
    """The samples of one shard folder, or of several one after another; rows are 0 … N-1.

    Columns (NumPy arrays over rows): `ids` uint64, `shard` int32 (see `path`), `duration_s` float64, `has_video` and
    `has_audio` bool, `label` int32 (an index into `labels`, -1 without). Everything else of a row is read on demand.
    Safe to pickle, to fork and to use from several threads.
    """

    ids: np.ndarray
    shard: np.ndarray
    duration_s: np.ndarray
    has_video: np.ndarray
    has_audio: np.ndarray
    label: np.ndarray

    def __init__(self, folders: list[_Folder]):
        self.folders = [folder.path for folder in folders]
        self.labels: list[str] = sorted({label for folder in folders for label in folder.labels})
        hashes = [folder.manifest_sha256 for folder in folders]
        self.manifest_sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        self.options: list[dict[str, Any]] = [folder.options for folder in folders]

        self._shard_paths = [path for folder in folders for path in folder.shard_paths]
        first_shard = np.cumsum([0] + [len(folder.shard_paths) for folder in folders])
        self._first_row = np.cumsum([0] + [len(folder.ids) for folder in folders])
        self.shard = np.concatenate([folder.shard + first for folder, first in zip(folders, first_shard, strict=False)])
        for name in ("ids", "duration_s", "has_video", "has_audio"):
            setattr(self, name, np.concatenate([getattr(folder, name) for folder in folders]))
        number_of = {label: number for number, label in enumerate(self.labels)}
        self.label = np.concatenate(
            [
                np.array([number_of[label] for label in folder.labels] + [-1], np.int32)[folder.label]
                for folder in folders
            ]
        )
        self._lines = [folder.lines for folder in folders]
        self._manifests = [folder.path / layout.MANIFEST for folder in folders]
        names = sorted({name for folder in folders for name in folder.members})
        self._members = {name: np.concatenate([folder.places(name) for folder in folders]) for name in names}
        self._file = _file_cache()

    @classmethod
    def open(
        cls, folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, verify: bool = False
    ) -> ShardSet:
        """Open a shard folder, or several as one set.

        The manifest is always checked against the index; with `verify` every shard is read and checked too.
        Raises ShardError if something is missing, damaged, unfinished or listed twice.
        """
        paths = [Path(folders)] if isinstance(folders, str | os.PathLike) else [Path(folder) for folder in folders]
        if not paths:
            raise ShardError("no shard folder was given")
        twice = [path for number, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:number]}]
        if twice:
            raise ShardError(f"{twice[0]}: this shard folder is given twice")
        if verify:
            from avssl.shards.verify import verify as find_problems

            for path in paths:
                for problem in find_problems(path):
                    raise ShardError(f"{path}: {problem}")
        return cls([_Folder(path) for path in paths])

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_file"}  # open files stay here

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._file = _file_cache()

    def path(self, shard: int) -> Path:
        """The tar file of a number in `shard`."""
        return self._shard_paths[shard]

    def record(self, row: int) -> dict[str, Any]:
        """The manifest's line of a row (see docs/shard-format.md), with `row` as in this set."""
        row = self._checked(row)
        folder = int(np.searchsorted(self._first_row, row, side="right")) - 1
        start, end = self._lines[folder][row - self._first_row[folder] :][:2]
        line = self._pread(self._manifests[folder], int(start), int(end - start))
        return json.loads(line) | {"row": row}

    def members(self, row: int) -> list[str]:
        """The extensions of a row's members, such as ["flac", "json", "mp4"]."""
        row = self._checked(row)
        return [name for name, places in self._members.items() if places[row, 0] >= 0]

    def member_name(self, row: int, kind: str) -> str:
        """The extension of the member that holds the "video" or the "audio" of a row.

        Folders built with --copy have one member for both. Raises ShardError if the row has no such stream.
        """
        if not {"video": self.has_video, "audio": self.has_audio}[kind][self._checked(row)]:
            raise ShardError(f"{self._describe(row)}: has no {kind}")
        names = [name for name in self.members(row) if name != "json"]
        own = {"video": "mp4", "audio": "flac"}[kind]
        return own if own in names else names[0]

    def read(self, row: int, member: str) -> bytes:
        """The bytes of a row's member, e.g. "mp4", "flac" or "json"."""
        row = self._checked(row)
        offset, size = self._members[member][row] if member in self._members else (-1, 0)
        if offset < 0:
            raise ShardError(f"{self._describe(row)}: has no member {member!r}, only {', '.join(self.members(row))}")
        return self._pread(self._shard_paths[self.shard[row]], int(offset), int(size))

    def _checked(self, row: int) -> int:
        row = int(row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a shard set with {len(self)} rows")
        return row

    def _describe(self, row: int) -> str:
        return f"{self._shard_paths[self.shard[row]]}, {self.ids[row]:016x}"

    def _pread(self, path: Path, offset: int, size: int) -> bytes:
        try:
            file = self._file(path)
            data = os.pread(file.descriptor, size, offset)
            while 0 < len(data) < size:  # the kernel gives at most 2 GiB at once
                more = os.pread(file.descriptor, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
        if len(data) < size:
            raise ShardError(f"{path}: ends early; restore the file or build the shards again")
        return data


class _OpenFile:
    """A descriptor that lives as long as somebody holds this object, so that one is never closed while it is read.

    `pread` keeps no position: the same descriptor serves threads and forked processes alike.
    """

    def __init__(self, path: Path):
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


def _file_cache() -> Any:
    return functools.lru_cache(maxsize=_OPEN_FILES)(_OpenFile)


class _Folder:
    """The columns of one shard folder, from its manifest."""

    def __init__(self, path: Path):
        index = layout.read_index(path)
        self.path = path
        self.options = index["options"]
        self.labels: list[str] = index["labels"]
        self.manifest_sha256: str = index["manifest_sha256"]
        self.shard_paths = [path / shard["name"] for shard in index["shards"]]
        rows = index["rows"]
        self.ids = np.zeros(rows, np.uint64)
        self.shard = np.zeros(rows, np.int32)
        self.duration_s = np.zeros(rows, np.float64)
        self.has_video = np.zeros(rows, bool)
        self.has_audio = np.zeros(rows, bool)
        self.label = np.full(rows, -1, np.int32)
        self.lines = np.zeros(rows + 1, np.int64)  # where each line of the manifest begins
        self.members: dict[str, np.ndarray] = {}  # by extension, see `places`
        manifest = path / layout.MANIFEST
        try:
            read = self._read(manifest)
        except OSError as error:
            raise ShardError(f"{manifest}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            read = -1
        if read != rows:
            raise ShardError(f"{manifest}: does not belong to {layout.INDEX}; restore it or build the shards again")

    def places(self, member: str) -> np.ndarray:
        """(offset, size) of a member of every row [N, 2], -1 where a row has none."""
        return self.members.get(member, np.full((len(self.ids), 2), -1, np.int64))

    def _read(self, manifest: Path) -> int:
        """Fill the columns; returns the number of rows, or -1 if the manifest is not the one of the index."""
        number_of = {label: number for number, label in enumerate(self.labels)}
        digest, end, row = hashlib.sha256(), 0, -1
        with manifest.open("rb") as file:
            for row, line in enumerate(file):
                digest.update(line)
                end += len(line)
                self.lines[row + 1] = end
                record = json.loads(line)
                self.ids[row] = int(record["id"], 16)
                self.shard[row] = record["shard"]
                self.duration_s[row] = record["end_s"] - record["start_s"]
                self.has_video[row] = record["video"] is not None
                self.has_audio[row] = record["audio"] is not None
                if record["label"] is not None:
                    self.label[row] = number_of[record["label"]]
                for name, place in record["members"].items():
                    if name not in self.members:
                        self.members[name] = self.places(name)
                    self.members[name][row] = place
        return row + 1 if digest.hexdigest() == self.manifest_sha256 else -1
