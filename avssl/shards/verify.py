"""Check a shard folder against its index and manifest."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avssl.errors import ShardError
from avssl.shards import format as layout


@dataclass(frozen=True)
class Problem:
    """One finding. `kind` is a stable word that programs may count by; `where` a file, or a file and a member."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail} ({self.kind})"


def verify(
    folder: Path, *, quick: bool = False, decode: int = 0, advance: Callable[..., None] = lambda n=1, note="": None
) -> Iterator[Problem]:
    """Yield what is wrong with a finished shard folder.

    Kinds: `index`, `manifest`, `columns`, `missing-shard`, `extra-shard`, `size`, `truncated`, `sha256`,
    `missing-member`, `extra-member`, `duplicate-key`, `member`, `undecodable`. `quick` compares names and
    sizes of files only. `decode` evenly spaced rows are decoded too. `advance` is called after each shard.
    """
    folder = Path(folder)
    try:
        index = layout.read_index(folder)
    except ShardError as error:
        yield Problem("index", str(folder / layout.INDEX), str(error))
        return
    yield from _compare_files(folder, index)
    spans: dict[int, tuple[int, int]] | None = None
    if not quick:
        spans, problems = _check_manifest(folder, index)
        yield from problems
        if not problems:
            yield from _check_columns(folder, index)
    for number, shard in enumerate(index["shards"]):
        path = folder / shard["name"]
        if path.exists() and not quick:
            rows = None if spans is None else _rows_between(folder / layout.MANIFEST, spans.get(number, (0, 0)))
            yield from _check_shard(path, shard, rows)
        advance(1)
    if decode:
        yield from _decode(folder, decode)


def _compare_files(folder: Path, index: dict[str, Any]) -> Iterator[Problem]:
    expected = {shard["name"]: shard["bytes"] for shard in index["shards"]}
    for name, size in expected.items():
        path = folder / name
        if not path.exists():
            yield Problem("missing-shard", name, "is in the index but not in the folder")
        elif path.stat().st_size != size:
            kind = "truncated" if path.stat().st_size < size else "size"
            yield Problem(kind, name, f"has {path.stat().st_size} bytes, the index says {size}")
    for path in sorted(folder.glob("*.tar")):
        if path.name not in expected:
            yield Problem("extra-shard", path.name, "is in the folder but not in the index")
    if not (folder / layout.MANIFEST).exists():
        yield Problem("manifest", layout.MANIFEST, "is missing")


def _check_manifest(folder: Path, index: dict[str, Any]) -> tuple[dict[int, tuple[int, int]] | None, list[Problem]]:
    """Where the lines of each shard begin and end in the manifest (None if it cannot be used), and what is wrong."""
    problems: list[Problem] = []

    def report(text: str, row: int | None = None) -> None:
        where = layout.MANIFEST if row is None else f"{layout.MANIFEST}, line {row + 1}"
        problems.append(Problem("manifest", where, text))

    digest, end, number = hashlib.sha256(), 0, -1
    spans: dict[int, tuple[int, int]] = {}
    seen: set[int] = set()
    last_shard = 0
    try:
        with (folder / layout.MANIFEST).open("rb") as file:
            for number, line in enumerate(file):
                digest.update(line)
                start, end = end, end + len(line)
                row = json.loads(line)
                for text in _odd(row, number, seen):
                    report(text, number)
                shard = row["shard"]
                if not last_shard <= shard < len(index["shards"]):
                    report(f"shard {shard} is out of order or not in the index", number)
                    return None, problems
                last_shard = shard
                spans[shard] = (spans.get(shard, (start, 0))[0], end)
    except FileNotFoundError:
        return None, problems  # named by _compare_files
    except OSError as error:
        report(f"cannot be read ({error.strerror})")
        return None, problems
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        report(f"is not a manifest row: {error!r}", number)
        return None, problems
    if digest.hexdigest() != index["manifest_sha256"]:
        report("its sha256 is not the one in the index")
    if number + 1 != index["rows"]:
        report(f"has {number + 1} rows, the index says {index['rows']}")
    return spans, problems


def _check_columns(folder: Path, index: dict[str, Any]) -> Iterator[Problem]:
    """Columns can be made again from the manifest, so a folder may do without; wrong ones it may not have."""
    path = folder / layout.COLUMNS
    if "columns" in index and path.exists():
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != index["columns"]["sha256"]:
                cure = f"delete it and run avssl-shards index {folder}"
                yield Problem("columns", layout.COLUMNS, f"its bytes are not the ones that were written; {cure}")


def _odd(row: dict[str, Any], number: int, seen: set[int]) -> Iterator[str]:
    """What does not fit; an exception if `row` is no manifest row at all."""
    if row["row"] != number:
        yield f"row is {row['row']}, not {number}"
    key = int(row["id"], 16)
    if key in seen:
        yield f"id {row['id']} is there twice"
    seen.add(key)
    times = layout.milliseconds(row["start_s"]), layout.milliseconds(row["end_s"])
    if row["id"] != layout.sample_id(row["source"], *times):
        yield f"id {row['id']} does not follow from source and times"
    for field in layout.SAMPLE_FIELDS:
        row[field]
    for offset, size in row["members"].values():
        int(offset), int(size)


def _rows_between(manifest: Path, span: tuple[int, int]) -> list[dict[str, Any]]:
    with manifest.open("rb") as file:
        file.seek(span[0])
        return [json.loads(line) for line in file.read(span[1] - span[0]).splitlines()]


def _check_shard(path: Path, shard: dict[str, Any], rows: list[dict[str, Any]] | None) -> Iterator[Problem]:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            yield Problem("sha256", path.name, "its bytes are not the ones that were written")
    found: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name in found:
                    yield Problem("duplicate-key", f"{path.name}, {member.name}", "is in the shard twice")
                found[member.name] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError) as error:
        yield Problem("truncated", path.name, f"cannot be read to its end as a tar: {error}")
    if rows is None:
        return
    if len(rows) != shard["rows"]:
        yield Problem("manifest", path.name, f"has {len(rows)} rows in the manifest, {shard['rows']} in the index")
    expected: set[str] = set()
    with path.open("rb") as file:
        for row in rows:
            for extension, place in row["members"].items():
                name = f"{row['id']}.{extension}"
                expected.add(name)
                if name not in found:
                    yield Problem("missing-member", f"{path.name}, {name}", "is in the manifest but not in the shard")
                elif found[name] != tuple(place):
                    yield Problem("member", f"{path.name}, {name}", f"lies at {found[name]}, the manifest says {place}")
                elif extension == "json" and not _describes(file, place, row):
                    yield Problem("member", f"{path.name}, {name}", "is not what the manifest says of this sample")
    for name in sorted(set(found) - expected):
        yield Problem("extra-member", f"{path.name}, {name}", "is in the shard but not in the manifest")


def _describes(file: Any, place: list[int], row: dict[str, Any]) -> bool:
    file.seek(place[0])
    try:
        return json.loads(file.read(place[1])) == {field: row[field] for field in layout.SAMPLE_FIELDS}
    except ValueError:
        return False


def _decode(folder: Path, wanted: int) -> Iterator[Problem]:
    """Decode `wanted` evenly spaced rows from end to end."""
    from avssl.errors import MediaError
    from avssl.media import open_media
    from avssl.shards.read import ShardSet

    try:
        shards = ShardSet.open(folder)
    except ShardError:
        return  # the manifest's problem is reported already
    step = max(1, len(shards) // wanted)
    for row in range(0, len(shards), step)[:wanted]:
        record = shards.record(row)
        for extension in sorted(set(record["members"]) - {"json"}):
            name = f"{record['id']}.{extension}"
            try:
                with open_media(shards.read(row, extension), name=name) as media:
                    if media.info.video is not None:
                        for _ in media.iter_frames(0.0, media.info.video.fps):
                            pass
                    if media.info.audio is not None:
                        for _ in media.iter_audio(0.0, rate_hz=media.info.audio.rate_hz, channels="all"):
                            pass
            except (MediaError, ShardError) as error:
                yield Problem("undecodable", f"{shards.shard_of(row)}, {name}", str(error))
