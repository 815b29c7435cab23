"""Read samples of shard folders by row number, in any order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import ShardError
from avssl.shards.folder import Folder, concatenated
from avssl.shards.open_file import OpenFile
from avssl.shards.options import CacheConfig
from avssl.shards.place import LocalPlace, RemotePlace, is_remote


class ShardSet:
    """The samples of one shard folder, or of several one after another; rows are 0 … N-1.

    Columns (NumPy arrays over rows): `ids` uint64, `shard` int32 (see `path`), `duration_s` float64, `has_video` and
    `has_audio` bool, `label` int32 (an index into `labels`, -1 without). Of a single folder they are mapped from its
    file, and of several they are made when first wanted. Everything else of a row is read on demand.
    Safe to pickle, to fork and to use from several threads.
    """

    def __init__(self, folders: list[Folder]):
        self._folders = folders
        self.labels: list[str] = sorted({label for folder in folders for label in folder.index["labels"]})
        hashes = [folder.index["manifest_sha256"] for folder in folders]
        self.manifest_sha256 = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
        self.options: list[dict[str, Any]] = [folder.index["options"] for folder in folders]
        self._first_row = np.cumsum([0] + [len(folder) for folder in folders])
        self._first_shard = np.cumsum([0] + [len(folder.index["shards"]) for folder in folders])

    @classmethod
    def open(
        cls,
        folders: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        verify: bool = False,
        cache: CacheConfig | None = None,
    ) -> ShardSet:
        """Open a shard folder, or several as one set.

        A folder is a path, or the address of a folder (`https://HOST/FOLDER`; several with blanks between them where
        it has mirrors), whose files then come through the cache. The manifest is always checked against the index (of
        one above 64 MiB here its size); with `verify` every local shard is read and checked too, remote ones always
        are. Raises ShardError if something is missing, damaged, unfinished or listed twice.
        """
        named = [os.fspath(folder) for folder in ([folders] if isinstance(folders, str | os.PathLike) else folders)]
        if not named:
            raise ShardError("no shard folder was given")
        known = [name if is_remote(name) else str(Path(name).resolve()) for name in named]
        twice = [name for number, name in enumerate(named) if known[number] in known[:number]]
        if twice:
            raise ShardError(f"{twice[0]}: this shard folder is given twice")
        if verify:
            from avssl.shards.verify import verify as find_problems

            for name in named:
                for problem in () if is_remote(name) else find_problems(Path(name)):
                    raise ShardError(f"{name}: {problem}")
        places = [
            RemotePlace(name, cache or CacheConfig()) if is_remote(name) else LocalPlace(Path(name)) for name in named
        ]
        return cls([Folder(place) for place in places])

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def __getstate__(self) -> dict[str, Any]:
        columns = ("ids", "shard", "duration_s", "has_video", "has_audio", "label")
        return {key: value for key, value in self.__dict__.items() if key not in columns}

    @cached_property
    def ids(self) -> np.ndarray:
        return concatenated(self._folders, "ids")

    @cached_property
    def duration_s(self) -> np.ndarray:
        return concatenated(self._folders, "duration_s")

    @cached_property
    def has_video(self) -> np.ndarray:
        return concatenated(self._folders, "has_video")

    @cached_property
    def has_audio(self) -> np.ndarray:
        return concatenated(self._folders, "has_audio")

    @cached_property
    def shard(self) -> np.ndarray:
        if len(self._folders) == 1:
            return self._folders[0].columns.shard
        firsts = self._first_shard.astype(np.int32)
        return np.concatenate(
            [folder.columns.shard + first for folder, first in zip(self._folders, firsts, strict=False)]
        )

    @cached_property
    def label(self) -> np.ndarray:
        if len(self._folders) == 1:
            return self._folders[0].columns.label
        number_of = {label: number for number, label in enumerate(self.labels)}
        return np.concatenate(
            [
                np.array([number_of[label] for label in folder.index["labels"]] + [-1], np.int32)[folder.columns.label]
                for folder in self._folders
            ]
        )

    @property
    def remote_bytes(self) -> int:
        """Of all files that come through the cache."""
        return sum(folder.total_bytes() for folder in self._folders if isinstance(folder.place, RemotePlace))

    def path(self, shard: int) -> Path:
        """The tar file of a number in `shard`, in a folder on a disk here."""
        folder, number = self._of_shard(shard)
        assert isinstance(folder.place, LocalPlace)
        return folder.place.folder / folder.shard_name(number)

    def shard_of(self, row: int) -> str:
        """The file name of the tar that holds a row."""
        folder, own = self._of_row(row)
        return folder.shard_name(int(folder.columns.shard[own]))

    def shard_path(self, shard: int) -> str:
        """Where the tar of a number in `shard` lies, for messages: a path or an address."""
        folder, number = self._of_shard(shard)
        return folder.place.path(folder.shard_name(number))

    def open_shard(self, shard: int) -> OpenFile:
        """The tar of a number in `shard`, fetched first if it is remote and not in the cache."""
        folder, number = self._of_shard(shard)
        return folder.open_shard(number)

    def record(self, row: int) -> dict[str, Any]:
        """The manifest's line of a row (see docs/shard-format.md), with `row` as in this set."""
        folder, own = self._of_row(row)
        return folder.record(own) | {"row": int(row)}

    def members(self, row: int) -> list[str]:
        """The extensions of a row's members, such as ["flac", "json", "mp4"]."""
        folder, own = self._of_row(row)
        return list(folder.members(own))

    def member_name(self, row: int, kind: str) -> str:
        """The extension of the member that holds the "video" or the "audio" of a row.

        Folders built with --copy have one member for both. Raises ShardError if the row has no such stream.
        """
        folder, row_there = self._of_row(row)
        if not {"video": folder.columns.has_video, "audio": folder.columns.has_audio}[kind][row_there]:
            raise ShardError(f"{self._describe(row)}: has no {kind}")
        names = [name for name in self.members(row) if name != "json"]
        own = {"video": "mp4", "audio": "flac"}[kind]
        return own if own in names else names[0]

    def read(self, row: int, member: str) -> bytes:
        """The bytes of a row's member, e.g. "mp4", "flac" or "json"."""
        folder, own = self._of_row(row)
        members = folder.members(own)
        if member not in members:
            raise ShardError(f"{self._describe(row)}: has no member {member!r}, only {', '.join(members)}")
        return folder.read(own, members[member])

    def _of_row(self, row: int) -> tuple[Folder, int]:
        """The folder of a row, and the row's number there."""
        row = int(row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a shard set with {len(self)} rows")
        number = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return self._folders[number], row - int(self._first_row[number])

    def _of_shard(self, shard: int) -> tuple[Folder, int]:
        number = int(np.searchsorted(self._first_shard, int(shard), side="right")) - 1
        return self._folders[number], int(shard) - int(self._first_shard[number])

    def _describe(self, row: int) -> str:
        folder, own = self._of_row(row)
        return f"{folder.place.path(self.shard_of(row))}, {folder.columns.ids[own]:016x}"
