"""From what the user names (files, folders, shard sets) to units of work, in an order that is always the same."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from avssl.errors import MediaError, ShardError, UsageError
from avssl.files import read_json
from avssl.shards import format as layout
from avssl.shards.sources import MEDIA_EXTENSIONS

if TYPE_CHECKING:
    from avssl.media import Source
    from avssl.shards.read import ShardSet


@dataclass(frozen=True)
class Item:
    """One recording to embed: a file, or a clip of a shard set.

    `video` and `audio` say where each is read from (the same file, or a member of the shard each; None = absent).
    `start_s` is added to the times of the rows: a clip's own start in its source. `projection` and `ambisonics` are
    what a shard set says of 360° video (`none`: it is none); None: nothing is known but what the user says.
    """

    path: str
    video: Source | None
    audio: Source | None
    start_s: float = 0.0
    row: int = -1
    id: str = ""
    label: str = ""
    projection: str | None = None
    ambisonics: str | None = None


class Unit(Protocol):
    """What is embedded, written and resumed as a whole."""

    @property
    def name(self) -> str:
        """Unique among the units of a run, and the same the next time."""

    @property
    def items(self) -> int:
        """How many items `load` yields."""

    def fingerprint(self) -> str:
        """Another text when the content has changed since."""

    def load(self) -> Iterator[Item | MediaError]:
        """The items; an error in the place of one that cannot be read."""


@dataclass(frozen=True)
class FileUnit:
    """A media file."""

    file: Path
    items = 1

    @property
    def name(self) -> str:
        return printable(self.file)

    def fingerprint(self) -> str:
        try:
            status = self.file.stat()
        except OSError:
            return "unreadable"
        return f"{status.st_size} bytes, modified {status.st_mtime_ns}"

    def load(self) -> Iterator[Item | MediaError]:
        yield Item(self.name, video=self.file, audio=self.file)


@dataclass(frozen=True)
class ShardUnit:
    """The clips of one shard: `rows` of the shard set."""

    folder: Path
    shards: ShardSet
    number: int
    rows: Sequence[int]

    @property
    def name(self) -> str:
        return f"{printable(self.folder)}#{self.number}"

    @property
    def items(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        return f"manifest {self.shards.manifest_sha256}"

    def load(self) -> Iterator[Item | MediaError]:
        for row in self.rows:
            record = self.shards.record(row)
            try:
                yield Item(
                    path=record["source"],
                    video=self._member(row, "video"),
                    audio=self._member(row, "audio"),
                    start_s=float(record["start_s"]),
                    row=row,
                    id=record["id"],
                    label=record["label"] or "",
                    projection=(record["video"] or {}).get("projection", "none"),
                    ambisonics=(record["audio"] or {}).get("ambisonics", "none"),
                )
            except ShardError as error:
                yield MediaError(f"{record['source']} (row {row} of {printable(self.folder)})", "corrupt", str(error))

    def _member(self, row: int, kind: str) -> bytes | None:
        present = self.shards.has_video if kind == "video" else self.shards.has_audio
        return self.shards.read(row, self.shards.member_name(row, kind)) if present[row] else None


def find_units(sources: Sequence[str | os.PathLike[str]]) -> list[Unit]:
    """The units of `sources` in the order given; folders are searched for media files, sorted by path.

    A file that is named twice is embedded once. Raises `UsageError` for what does not exist or holds nothing and
    `ShardError` for a damaged or unfinished shard set.
    """
    units: dict[str, Unit] = {}
    for source in map(Path, sources):
        found: Sequence[Unit]
        if source.is_file():
            found = [FileUnit(source)]
        elif is_shard_set(source):
            found = _shard_units(source)
        elif source.is_dir():
            found = [FileUnit(file) for file in _media_files(source)]
            if not found and ((source / layout.STATE).is_dir() or any(source.glob("job-*/"))):
                layout.read_index(source)  # says how to finish this build of shards
            if not found:
                endings = " ".join(sorted(MEDIA_EXTENSIONS))
                raise UsageError(f"{source}: no media files in this folder; looked for names that end in {endings}")
        elif source.exists():
            raise UsageError(f"{source}: is neither a file nor a folder")
        else:
            raise UsageError(f"{source}: no such file or folder")
        for unit in found:
            units.setdefault(unit.name, unit)
    return list(units.values())


def is_shard_set(folder: Path) -> bool:
    """Whether `folder` was written by `avssl-shards`."""
    try:
        index = read_json(folder / layout.INDEX)
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get("format") == layout.FORMAT


def printable(path: Path) -> str:
    """A path as text for tables; bytes that are not UTF-8 appear as `\\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _shard_units(folder: Path) -> list[ShardUnit]:
    from avssl.shards.read import ShardSet

    shards = ShardSet.open(folder)
    units = [
        ShardUnit(folder, shards, number, list(rows))
        for number, rows in groupby(range(len(shards)), key=lambda row: int(shards.shard[row]))
    ]
    if not units:
        raise UsageError(f"{folder}: this shard set has no clips")
    return units


def _media_files(folder: Path) -> list[Path]:
    files = []
    for parent, folders, names in os.walk(folder, onerror=_refuse_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [
            Path(parent, name)
            for name in names
            if not name.startswith(".") and Path(name).suffix[1:].lower() in MEDIA_EXTENSIONS
        ]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _refuse_unreadable(error: OSError) -> None:
    raise UsageError(f"{error.filename}: this folder cannot be read: {error.strerror}") from error
