"""Join the jobs of a split build into one shard folder. Tars are moved, not copied; a kill may come at any time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avssl import files
from avssl.errors import ShardError, UsageError
from avssl.shards import format as layout
from avssl.shards.build import Summary, summarise
from avssl.shards.folder import write_columns
from avssl.shards.options import describe_difference
from avssl.shards.read import ShardSet
from avssl.shards.write import clear_disk_errors, write_manifest


def merge(out: str | os.PathLike[str]) -> Summary:
    """Join OUT/job-0000, OUT/job-0001, … so that OUT is a shard folder with the rows in job order.

    That is the row order of a build that was not split; the shards are cut at other places.
    Raises UsageError or ShardError if a job is missing, unfinished or was built with other options.
    """
    out = Path(out)
    folders = sorted(path for path in out.glob("job-*") if path.is_dir())
    if (out / layout.INDEX).exists():
        _remove(folders)  # a kill came after the index and before this
        return summarise(out, complete=True)
    indexes = _checked_indexes(out, folders)
    _check_ids(folders)
    with clear_disk_errors(out):
        shards = _move_shards(out, folders, indexes)
        digest, labels = write_manifest(out, _rows(folders, indexes))
        rows = sum(index["rows"] for index in indexes)
        columns = write_columns(out, rows=rows, labels=labels, manifest_sha256=digest)
        rejected = [row for folder in folders for row in files.read_jsonl(folder / layout.REJECTED)]
        files.write_jsonl(out / layout.REJECTED, rejected)
        layout.write_index(
            out, rows=rows, manifest_sha256=digest, options=indexes[0]["options"],
            sources=sum(index["sources"] for index in indexes), sources_sha256=indexes[0]["sources_sha256"],
            job=None, shards=shards, labels=labels, rejected=len(rejected), columns=columns,
        )  # fmt: skip
        _remove(folders)
    return summarise(out)


def _checked_indexes(out: Path, folders: list[Path]) -> list[dict[str, Any]]:
    if not folders:
        raise UsageError(f"{out}: holds no job-* folder to merge; make them with avssl-shards build --job-index")
    indexes = [layout.read_index(folder) for folder in folders]
    for folder, index in zip(folders, indexes, strict=True):
        if index["options"] != indexes[0]["options"]:
            difference = describe_difference(indexes[0]["options"], index["options"])
            raise ShardError(f"{folder}: was built with other options than {folders[0].name}: {difference}")
        if index["sources_sha256"] != indexes[0]["sources_sha256"]:
            raise ShardError(f"{folder}: was built from another list of sources than {folders[0].name}; build it again")
    jobs = [index["job"] for index in indexes]
    count = jobs[0]["count"]
    found = {job["index"] for job in jobs if job["count"] == count}
    if missing := sorted(set(range(count)) - found):
        raise ShardError(f"{out}: job {missing[0]} of {count} is missing; run it with --job-index {missing[0]}")
    if len(jobs) > count:
        raise ShardError(f"{out}: holds jobs of builds split into different numbers; remove the ones not meant")
    return indexes


def _check_ids(folders: list[Path]) -> None:
    """Overlapping entries of a list may give the same clip in two jobs."""
    shards = ShardSet.open(folders)
    order = np.argsort(shards.ids, kind="stable")
    again = np.flatnonzero(shards.ids[order][1:] == shards.ids[order][:-1])
    if len(again):
        clip = shards.record(int(order[again[0]]))
        raise ShardError(
            f"the clip of {clip['source']} from {clip['start_s']} s on is in two jobs; "
            "remove one of the overlapping entries from the list and build again"
        )


def _move_shards(out: Path, folders: list[Path], indexes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Move the tars to their names in OUT; one that is there already was moved before a kill."""
    shards: list[dict[str, Any]] = []
    for folder, index in zip(folders, indexes, strict=True):
        for shard in index["shards"]:
            name = layout.shard_name(index["options"]["name"], len(shards))
            if (folder / shard["name"]).exists():
                (folder / shard["name"]).replace(out / name)
            elif not (out / name).exists() or (out / name).stat().st_size != shard["bytes"]:
                raise ShardError(f"{folder / shard['name']}: this shard is missing; build the job again")
            shards.append(shard | {"name": name})
    files.sync_directory(out)
    return shards


def _rows(folders: list[Path], indexes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    number = first_shard = 0
    for folder, index in zip(folders, indexes, strict=True):
        for row in files.read_jsonl(folder / layout.MANIFEST):
            yield row | {"row": number, "shard": row["shard"] + first_shard}
            number += 1
        first_shard += len(index["shards"])


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)
