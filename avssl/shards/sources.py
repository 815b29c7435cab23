"""What to pack: the files of a folder tree, or the lines of a CSV or JSONL list, as an ordered list of entries."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avssl.errors import UsageError
from avssl.files import json_line
from avssl.shards.format import milliseconds
from avssl.shards.spatial import AMBISONICS, DECLARED, PROJECTIONS

_VIDEO = {"mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "flv", "wmv", "3gp", "ogv"}
_AUDIO = {"wav", "flac", "mp3", "m4a", "aac", "ogg", "oga", "opus"}
MEDIA_EXTENSIONS = frozenset(_VIDEO | _AUDIO)
_COLUMNS = {
    "path": "path",
    "start_s": "start_s",
    "start": "start_s",
    "end_s": "end_s",
    "end": "end_s",
    "label": "label",
    "ambisonics": "ambisonics",
    "projection": "projection",
}
_SPATIAL = {"ambisonics": ("none", *AMBISONICS, DECLARED), "projection": ("none", *PROJECTIONS, DECLARED)}


@dataclass(frozen=True)
class Entry:
    """One thing to pack: a file, or a range of a file."""

    source: str  # the name in manifests: path relative to the folder, or as written in the list
    path: str  # where the file is
    start_s: float | None = None  # None: from the beginning
    end_s: float | None = None  # None: to the end
    label: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    ambisonics: str | None = None  # what its sound is; None: what the build's options say
    projection: str | None = None  # likewise, of its picture

    def listed(self) -> dict[str, Any]:
        """What identifies the entry, without where its file is on this machine."""
        plain = dataclasses.asdict(self)
        unsaid = [key for key in _SPATIAL if plain[key] is None]
        return {key: value for key, value in plain.items() if key not in ("path", *unsaid)}


@dataclass(frozen=True)
class Listing:
    entries: list[Entry]
    ignored: int = 0  # files in the folder that have no media extension
    part_of: Listing | None = None

    @functools.cached_property
    def sha256(self) -> str:
        """Names the whole list: another order, range, label or metadata gives another value."""
        if self.part_of is not None:
            return self.part_of.sha256
        digest = hashlib.sha256()
        for entry in self.entries:
            digest.update(json_line(entry.listed()))
        return digest.hexdigest()


def list_sources(
    src: str | os.PathLike[str], *, labels: bool = True, root: str | os.PathLike[str] | None = None
) -> Listing:
    """List a folder tree, a .csv, a .jsonl or a single media file.

    Paths in a list are relative to `root`, by default to the folder of the list. Raises UsageError that names the line.
    """
    path = Path(src)
    suffix = path.suffix.lower()
    if path.is_dir():
        if root is not None:
            raise UsageError(f"{path} is a folder: root only serves the relative paths of a CSV or JSONL list")
        return _list_folder(path, labels)
    if not path.exists():
        raise UsageError(f"{path}: no such folder or file")
    if suffix in {".csv", ".jsonl"}:
        rows = _csv_rows(path) if suffix == ".csv" else _jsonl_rows(path)
        return _list_rows(path, rows, Path(root) if root is not None else path.parent, labels)
    if suffix[1:] in MEDIA_EXTENSIONS:
        return Listing([Entry(_printable(path.name), str(path))])
    raise UsageError(f"{path}: give a folder, a .csv, a .jsonl or a media file")


def slice_for_job(listing: Listing, index: int, count: int) -> Listing:
    """The `index`-th of `count` contiguous, nearly equal parts."""
    if not 0 <= index < count:
        raise UsageError(f"job index {index} of {count} jobs: it must lie between 0 and {count - 1}")
    total = len(listing.entries)
    part = listing.entries[index * total // count : (index + 1) * total // count]
    return Listing(part, listing.ignored, part_of=listing)


def describe_change(before: Iterable[str], now: Iterable[str]) -> str:
    """What changed from one set of source names to another, in words."""
    before, now = set(before), set(now)
    parts = []
    for verb, names in (("added", now - before), ("gone", before - now)):
        if names:
            parts.append(f"{len(names)} {verb} (e.g. {min(names)})")
    return " and ".join(parts) or "the same files with another order, ranges, labels or metadata"


def _printable(name: str) -> str:
    """File names need not be text; bytes that are not UTF-8 appear as \\udcNN in manifests."""
    return name.encode("utf-8", "backslashreplace").decode()


def _list_folder(root: Path, labels: bool) -> Listing:
    found, ignored = [], 0
    for relative in _walk(root, "", frozenset()):
        if relative.rpartition(".")[2].lower() in MEDIA_EXTENSIONS:
            found.append(relative)
        else:
            ignored += 1
    entries = []
    for relative in sorted(found):
        folder, slash, _ = relative.partition("/")
        label = _printable(folder) if labels and slash else None
        entries.append(Entry(_printable(relative), str(root / relative), label=label))
    return Listing(entries, ignored)


def _walk(root: Path, relative: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Paths of visible files below `root`, relative to it; links are followed, except to a folder they lie in."""
    folder = root / relative
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as listing:
            items = [(item.name, item.is_dir()) for item in listing if not item.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror}); make it readable or move it away") from None
    for name, is_folder in items:
        path = f"{relative}/{name}" if relative else name
        if is_folder:
            yield from _walk(root, path, above | {here})
        else:
            yield path


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            if "path" not in columns:
                raise UsageError(
                    f"{path}: the first line must name the columns, with `path` among them; it is {columns}"
                )
            if len(set(columns)) < len(columns):
                raise UsageError(f"{path}: a column is named twice: {columns}")
            for row in reader:
                if None in row or None in row.values():
                    raise UsageError(f"{path}, line {reader.line_num}: has another number of cells than the first line")
                yield reader.line_num, {key: value for key, value in row.items() if value != ""}
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
                    json_line(row)  # refuses half surrogate pairs, which no manifest could hold
                except (ValueError, RecursionError) as error:
                    raise UsageError(f"{path}, line {number}: not JSON ({error})") from None
                if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                    raise UsageError(f'{path}, line {number}: must be an object with a text "path"')
                yield number, {key: value for key, value in row.items() if value is not None}
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a JSON number")


def _list_rows(list_path: Path, rows: Iterator[tuple[int, dict[str, Any]]], root: Path, labels: bool) -> Listing:
    entries: list[Entry] = []
    first_line: dict[tuple[str, int | None, int | None], int] = {}
    for line, row in rows:
        where = f"{list_path}, line {line}"
        known: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        for key, value in row.items():
            if key not in _COLUMNS:
                meta[key] = value
            elif _COLUMNS[key] in known:
                raise UsageError(f"{where}: {key} and {_COLUMNS[key]} mean the same; give one of them")
            else:
                known[_COLUMNS[key]] = value
        if isinstance(meta.get("meta"), dict):
            meta |= meta.pop("meta")
        if not known.get("path"):
            raise UsageError(f"{where}: the path is empty")
        start_s, end_s = (_time(known.get(key), key, where) for key in ("start_s", "end_s"))
        if end_s is not None and end_s <= (start_s or 0.0):
            raise UsageError(f"{where}: end_s {end_s} is not after start_s {start_s or 0.0}")
        path = os.path.normpath(root / known["path"])
        place = (path, *(None if time is None else milliseconds(time) for time in (start_s, end_s)))
        if place in first_line:
            raise UsageError(f"{where}: the same file and range as line {first_line[place]}; remove one of them")
        first_line[place] = line
        label = known.get("label") if labels else None
        if isinstance(label, (dict, list)):
            raise UsageError(f"{where}: label is {label!r}; it must be text")
        for key, valid in _SPATIAL.items():
            if known.get(key, "none") not in valid:
                raise UsageError(f"{where}: {key} is {known[key]!r}; choose one of {', '.join(valid)}")
        spatial = {key: known.get(key) for key in _SPATIAL}
        label = None if label is None else str(label)
        entries.append(Entry(_printable(known["path"]), path, start_s, end_s, label, meta, **spatial))
    return Listing(entries)


def _time(value: Any, key: str, where: str) -> float | None:
    if value is None:
        return None
    try:
        time_s = float(value)
    except (TypeError, ValueError):
        time_s = math.nan
    if isinstance(value, bool) or not math.isfinite(time_s) or time_s < 0:
        raise UsageError(f"{where}: {key} is {value!r}; it must be seconds from the beginning of the file, 0 or more")
    return time_s
