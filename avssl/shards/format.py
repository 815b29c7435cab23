"""What lies where in a shard folder: file names, sample ids, manifest rows, the index (docs/shard-format.md)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avssl import files
from avssl.errors import ShardError

FORMAT = "avssl-shards"
VERSION = 1

INDEX = "index.json"
MANIFEST = "manifest.jsonl"
COLUMNS = "columns.safetensors"
REJECTED = "rejected.jsonl"
PREVIEW = "preview.html"
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9]{6,}\.tar")
STATE = ".build"  # the folder of a build that is under way

# The fields of KEY.json, in this order; a manifest row has "row" before them and "shard", "members" after "id".
SAMPLE_FIELDS = ("id", "source", "start_s", "end_s", "label", "meta", "video", "audio")


def sample_id(source: str, start_ms: int, end_ms: int) -> str:
    """The stable id of a clip, 16 hex digits: blake2b-64 of "source NUL start NUL end", times in whole milliseconds."""
    text = f"{source}\0{start_ms}\0{end_ms}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def milliseconds(time_s: float) -> int:
    return round(time_s * 1000)


def shard_name(name: str, number: int) -> str:
    return f"{name}-{number:06d}.tar"


def job_folder(index: int) -> str:
    return f"job-{index:04d}"


def manifest_row(row: int, shard: int, members: dict[str, tuple[int, int]], sample: dict[str, Any]) -> dict[str, Any]:
    """A line of manifest.jsonl. `members` maps an extension to (offset, size) of its data in the tar, in bytes."""
    placed = {"row": row, "id": sample["id"], "shard": shard, "members": {k: list(v) for k, v in members.items()}}
    return placed | {field: sample[field] for field in SAMPLE_FIELDS[1:]}


def read_index(folder: Path) -> dict[str, Any]:
    """The checked index.json of a finished shard folder.

    Raises ShardError that says what the folder is instead.
    """
    path = folder / INDEX
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ShardError(_why_no_index(folder)) from None
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error}); build the shards again or restore the file") from None
    return parse_index(text, str(path))


def parse_index(text: bytes, path: str) -> dict[str, Any]:
    """The content of an index.json, checked. `path` is what errors call it."""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{path}: cannot be read ({error}); build the shards again or restore the file") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise ShardError(f'{path}: "format" is not "{FORMAT}", so this is not a shard index')
    if index.get("version") != VERSION:
        raise ShardError(
            f"{path}: format version {index.get('version')!r}, but this avssl reads version {VERSION}; "
            "use the avssl that wrote it or build the shards again"
        )
    missing = [key for key in ("rows", "manifest_sha256", "options", "shards", "labels") if key not in index]
    if missing:
        raise ShardError(f"{path}: key {missing[0]!r} is missing; restore the file or build the shards again")
    odd = next(_odd_keys(index), None)
    if odd is not None:
        raise ShardError(f"{path}: key {odd!r} is not what it must be; restore the file or build the shards again")
    return index


def _odd_keys(index: dict[str, Any]) -> Iterator[str]:
    """Keys of an index whose values no build writes. The names of shards above all: a stranger's folder must not name
    files outside of it."""
    kinds: dict[str, type] = {"manifest_sha256": str, "options": dict, "shards": list, "labels": list}
    yield from (key for key, kind in kinds.items() if not isinstance(index[key], kind))
    if not _is_count(index["rows"]):
        yield "rows"
    if not all(isinstance(label, str) for label in index["labels"]):
        yield "labels"
    for number, shard in enumerate(index["shards"]):
        proper = isinstance(shard, dict) and isinstance(shard.get("sha256"), str)
        if not (proper and isinstance(shard.get("name"), str) and _SHARD_NAME.fullmatch(shard["name"])):
            yield f"shards[{number}].name"
        elif not (_is_count(shard.get("bytes")) and _is_count(shard.get("rows"))):
            yield f"shards[{number}].bytes"
    columns = index.get("columns")
    if columns is not None and not (
        isinstance(columns, dict) and isinstance(columns.get("sha256"), str) and _is_count(columns.get("bytes"))
    ):
        yield "columns"


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _why_no_index(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: no such folder of shards"
    if (folder / STATE).is_dir():
        return f"{folder}: this build is not finished; run the same avssl-shards build command again to finish it"
    if any(folder.glob("job-*/")):
        return f"{folder}: holds the jobs of a split build; run: avssl-shards merge {folder}"
    return f"{folder}: has no {INDEX}, so it is not a shard folder; make one with: avssl-shards build SRC {folder}"


def write_index(
    folder: Path,
    *,
    rows: int,
    manifest_sha256: str,
    options: dict[str, Any],
    sources_sha256: str,
    sources: int,
    job: dict[str, int] | None,
    shards: list[dict[str, Any]],
    labels: list[str],
    rejected: int,
    columns: dict[str, Any],
) -> None:
    """Write index.json: the last file of a build, so its presence says that the folder is whole."""
    from avssl import __version__

    index = {
        "format": FORMAT,
        "version": VERSION,
        "rows": rows,
        "manifest_sha256": manifest_sha256,
        "columns": columns,
        "options": options,
        "sources": sources,
        "sources_sha256": sources_sha256,
        "job": job,
        "shards": shards,
        "labels": labels,
        "rejected": rejected,
        "created_with": f"avssl {__version__}",
    }
    files.write_json(folder / INDEX, index)
