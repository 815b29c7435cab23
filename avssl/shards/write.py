"""The ordered end of a build: clips come in source order, shards come out. Survives a kill at any moment.

While a build runs, OUT/.build/ holds what it is (state.json, sources.jsonl) and one JSON file for each finished shard:
its rows, the sources rejected on the way, and where to go on. A shard counts once that file is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from avssl import files
from avssl.errors import ShardError, UsageError
from avssl.shards import format as layout
from avssl.shards.folder import write_columns
from avssl.shards.options import BuildOptions, describe_difference
from avssl.shards.sources import Listing, describe_change
from avssl.shards.tar import TarWriter
from avssl.shards.transcode import Clip, Rejected


class Cursor(NamedTuple):
    """The next clip to write: of which entry, and how many clips that entry has if that is known already."""

    entry: int = 0
    clip: int = 0
    clips: int | None = None


@dataclass(frozen=True)
class Job:
    """This build is part `index` of `count`."""

    index: int
    count: int


def is_finished(out: Path, listing: Listing, options: BuildOptions, job: Job | None) -> bool:
    """Whether `out` already holds exactly this build.

    Raises UsageError if it holds another build or other files, saying what differs.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder for the shards")
    if (out / layout.INDEX).exists():
        index = layout.read_index(out)
        _check_same(out, index, listing, options, job, lambda: _packed_sources(out))
        shutil.rmtree(out / layout.STATE, ignore_errors=True)  # a kill came after the index and before this
        _remove_leftovers(out)
        return True
    state = out / layout.STATE / "state.json"
    if state.exists():
        listed = state.with_name("sources.jsonl")
        _check_same(out, files.read_json(state), listing, options, job, lambda: files.read_jsonl(listed))
        return False
    strangers = sorted(path.name for path in out.iterdir() if path.name != layout.STATE)
    if strangers:
        raise UsageError(f"{out}: already holds other files (e.g. {strangers[0]}); name a new or empty folder")
    return False


def _remove_leftovers(out: Path) -> None:
    """Half-written files of a process that was killed while it finished a build. Only for who may build here."""
    for leftover in out.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _check_same(
    out: Path,
    before: dict[str, Any],
    listing: Listing,
    options: BuildOptions,
    job: Job | None,
    sources_before: Callable[[], list[str]],
) -> None:
    cure = "run with the same ones, or name a new folder"
    if before["options"] != options.to_dict():
        difference = describe_difference(before["options"], options.to_dict())
        raise UsageError(f"{out}: holds a build with other options: {difference}; {cure}")
    before_job = before["job"] and Job(**before["job"])
    if before_job != job:
        raise UsageError(f"{out}: holds a build split otherwise: was {before_job}, is {job}; {cure}")
    if before["sources_sha256"] != listing.sha256:
        change = describe_change(sources_before(), (entry.source for entry in listing.entries))
        raise UsageError(f"{out}: holds a build of other sources: {change}; {cure}")


def _packed_sources(out: Path) -> list[str]:
    """Every source of a finished build: each has a row or a rejection."""
    rows = files.read_jsonl(out / layout.MANIFEST) + files.read_jsonl(out / layout.REJECTED)
    return [row["source"] for row in rows]


class ShardWriter:
    """Appends clips to shards; the next process goes on at `cursor` after the last finished shard."""

    def __init__(self, out: Path, listing: Listing, options: BuildOptions, job: Job | None):
        self.out, self._options, self._job, self._listing = out, options, job, listing
        self._state = out / layout.STATE
        self.cursor = Cursor()
        self.rows = 0
        self._shards: list[dict[str, Any]] = []
        self._finished_bytes = 0
        self._seen: set[int] = set()
        self._rejected_before: list[dict[str, Any]] = []  # in finished shards
        self._rejected: list[dict[str, Any]] = []  # since the last finished shard
        self._pending: list[dict[str, Any]] = []  # rows of the open shard
        self._tar: TarWriter | None = None
        self._lock = self._claim()
        try:
            self._load()
        except BaseException:
            self._lock.close()
            raise

    @property
    def bytes_written(self) -> int:
        return self._finished_bytes + (self._tar.bytes if self._tar is not None else 0)

    @property
    def rejected(self) -> int:
        return len(self._rejected_before) + len(self._rejected)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tar is not None:
            self._tar.close()
        self._lock.close()

    def add(self, clip: Clip, following: Cursor) -> None:
        """Append a clip; `following` is where to go on after it. A clip that is there already is rejected."""
        sample = clip.sample
        key = int(sample["id"], 16)
        if key in self._seen:
            detail = f"the clip from {sample['start_s']} to {sample['end_s']} s is packed already"
            self.reject(sample["source"], Rejected("duplicate", detail, sample["start_s"]), following)
            return
        self._seen.add(key)
        if self._tar is None:
            self._tar = TarWriter(self._state / "open.tar")
        members = clip.members | {"json": files.json_line(sample)}
        placed = {name: self._tar.add(f"{sample['id']}.{name}", data) for name, data in members.items()}
        self._pending.append(layout.manifest_row(self.rows, len(self._shards), placed, sample))
        self.rows += 1
        self.cursor = following
        limit = self._options.shard_clips
        if self._tar.bytes >= self._options.shard_mb * 1e6 or (limit and len(self._pending) >= limit):
            self._close_shard()

    def reject(self, source: str, why: Rejected, following: Cursor) -> None:
        self._rejected.append({"source": source, "start_s": why.start_s, "reason": why.reason, "detail": why.detail})
        self.cursor = following

    def finish(self) -> None:
        """Close the last shard and write rejected.jsonl, manifest.jsonl and, last of all, index.json."""
        if self._tar is not None:
            self._close_shard()
        rejected = self._rejected_before + self._rejected
        files.write_jsonl(self.out / layout.REJECTED, rejected)
        digest, labels = write_manifest(self.out, self._rows())
        columns = write_columns(self.out, rows=self.rows, labels=labels, manifest_sha256=digest)
        layout.write_index(
            self.out, rows=self.rows, manifest_sha256=digest, options=self._options.to_dict(),
            sources=len(self._listing.entries), sources_sha256=self._listing.sha256,
            job=asdict(self._job) if self._job else None, shards=self._shards, labels=labels, rejected=len(rejected),
            columns=columns,
        )  # fmt: skip
        shutil.rmtree(self._state)

    def _claim(self) -> IO[bytes]:
        """Make the folder, take its lock, and write what is being built."""
        self._state.mkdir(parents=True, exist_ok=True)
        lock = (self._state / "lock").open("ab")
        try:
            _lock_or_refuse(lock, self.out)
            if (self.out / layout.INDEX).exists():
                raise UsageError(f"{self.out}: another process has just finished this build; there is nothing to do")
            _remove_leftovers(self.out)
            if not (self._state / "state.json").exists():
                files.write_jsonl(self._state / "sources.jsonl", [entry.source for entry in self._listing.entries])
                state = {
                    "options": self._options.to_dict(),
                    "sources_sha256": self._listing.sha256,
                    "job": asdict(self._job) if self._job else None,
                }
                files.write_json(self._state / "state.json", state)
        except BaseException:
            lock.close()
            raise
        return lock

    def _load(self) -> None:
        while (path := self._sidecar(len(self._shards))).exists():
            finished = files.read_json(path)
            shard = finished["shard"]
            tar = self.out / shard["name"]
            if not tar.exists() or tar.stat().st_size != shard["bytes"]:
                raise ShardError(f"{tar}: a finished shard was removed or changed; delete {self.out} and build again")
            self._shards.append(shard)
            self._finished_bytes += shard["bytes"]
            self._rejected_before += finished["rejected"]
            self._seen.update(int(row["id"], 16) for row in finished["rows"])
            self.rows += len(finished["rows"])
            self.cursor = Cursor(*finished["cursor"])

    def _close_shard(self) -> None:
        assert self._tar is not None
        number = len(self._shards)
        size, digest = self._tar.finish()
        name = layout.shard_name(self._options.name, number)
        (self._state / "open.tar").replace(self.out / name)
        files.sync_directory(self.out)
        shard = {"name": name, "bytes": size, "sha256": digest, "rows": len(self._pending)}
        finished = {"shard": shard, "cursor": self.cursor, "rejected": self._rejected, "rows": self._pending}
        files.write_json(self._sidecar(number), finished)
        self._shards.append(shard)
        self._finished_bytes += size
        self._rejected_before += self._rejected
        self._tar, self._rejected, self._pending = None, [], []

    def _sidecar(self, number: int) -> Path:
        return self._state / f"{number:06d}.json"

    def _rows(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self._shards)):
            yield from files.read_json(self._sidecar(number))["rows"]


def write_manifest(out: Path, rows: Iterator[dict[str, Any]]) -> tuple[str, list[str]]:
    """Write manifest.jsonl; returns its sha256 and the sorted labels."""
    digest, labels = hashlib.sha256(), set()

    def write(file: IO[bytes]) -> None:
        for row in rows:
            line = files.json_line(row)
            digest.update(line)
            file.write(line)
            if row["label"] is not None:
                labels.add(row["label"])

    files.write_atomic(out / layout.MANIFEST, write)
    return digest.hexdigest(), sorted(labels)


def _lock_or_refuse(lock: IO[bytes], out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on this system
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{out}: another process is building here; wait for it, or name another folder") from None
    except OSError:  # a network file system without locks
        return


@contextlib.contextmanager
def clear_disk_errors(out: Path) -> Iterator[None]:
    """Say what a failure to write means: what is kept, what to do."""
    try:
        yield
    except OSError as error:
        cause = os.strerror(error.errno) if error.errno else str(error)
        raise ShardError(
            f"{out}: cannot be written ({cause}); finished shards are kept: free space or allow writing, "
            "then run the same command again"
        ) from error
