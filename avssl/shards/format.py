"""What lies where in a shard folder: file names, sample ids, manifest rows, the index (docs/shard-format.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from avssl import files
from avssl.errors import ShardError

FORMAT = "avssl-shards"
VERSION = 1

INDEX = "index.json"
MANIFEST = "manifest.jsonl"
REJECTED = "rejected.jsonl"
PREVIEW = "preview.html"
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
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ShardError(_why_no_index(folder)) from None
    except (OSError, ValueError) as error:
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
    return index


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
) -> None:
    """Write index.json: the last file of a build, so its presence says that the folder is whole."""
    from avssl import __version__

    index = {
        "format": FORMAT,
        "version": VERSION,
        "rows": rows,
        "manifest_sha256": manifest_sha256,
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
