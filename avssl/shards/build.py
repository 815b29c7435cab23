"""Pack a listing into a shard folder: many processes transcode, one writes in order, so the result never varies."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from avssl import files
from avssl.errors import ShardError, UsageError
from avssl.media.regular import HandedFile
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.child import Reply
from avssl.sandbox.confine import limit_cpu
from avssl.shards import format as layout
from avssl.shards.answer import from_answer, to_answer
from avssl.shards.options import BuildOptions
from avssl.shards.pool import Lost, WorkerPool
from avssl.shards.sources import Entry, Listing, slice_for_job
from avssl.shards.transcode import Clip, Outcome, Rejected, open_source, pack_clip
from avssl.shards.write import Cursor, Job, ShardWriter, clear_disk_errors, is_finished

_HARD_TIMEOUT = 1.5  # media has its own time limit; the process is killed if it did not keep it


@dataclass(frozen=True)
class Summary:
    """What a shard folder holds after a build or merge. `complete`: it was all there before, nothing was done."""

    out: str
    sources: int
    rows: int
    hours: float
    shards: int
    bytes: int
    rejected: int
    rejected_by_reason: dict[str, int]
    complete: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Task:
    number: int  # of the entry in the listing
    entry: Entry
    clip: int = 0
    clips: int | None = None  # how many the entry has; unknown before its first clip was made

    @property
    def place(self) -> tuple[int, int]:
        return self.number, self.clip


def build(
    listing: Listing,
    out: str | os.PathLike[str],
    options: BuildOptions | None = None,
    *,
    workers: int = 1,
    timeout_s: float = 120.0,
    sandbox: Bounds | None = None,
    job: Job | None = None,
    advance: Callable[..., None] = lambda n=1, note="": None,
) -> Summary:
    """Pack `listing` (see `list_sources`) into the folder `out`, or go on where an earlier call was stopped.

    The files written depend on the listing and the options only: not on `workers`, kills or the machine's load, as long
    as no clip takes longer than `timeout_s`. With `job`, its part of the listing is packed into a folder of its own
    below `out`, to be joined by `merge`. `advance(n, note)` is called as sources are done. With `sandbox` the processes
    that decode are confined (see `avssl.sandbox`): same bytes, but a hostile file can do less.

    Raises UsageError if `out` holds something else, ShardError if it cannot be written. Bad media are not errors: they
    are in `rejected.jsonl` and in the summary.
    """
    out, options = Path(out), options or BuildOptions()
    if workers < 1:
        raise UsageError(f"workers is {workers}; it must be at least 1")
    if not listing.entries:
        raise UsageError("no media to pack: the source holds no file with a known media extension, or the list no line")
    if options.copy and any(entry.start_s is not None or entry.end_s is not None for entry in listing.entries):
        raise UsageError("--copy keeps whole files, but the list asks for ranges; leave out --copy or the ranges")
    if job is not None:
        if (out / layout.INDEX).exists():
            raise UsageError(f"{out}: is a finished or merged build already; name a new folder")
        listing, out = slice_for_job(listing, job.index, job.count), out / layout.job_folder(job.index)
    with clear_disk_errors(out):
        if is_finished(out, listing, options, job):
            return summarise(out, complete=True)
        writer = ShardWriter(out, listing, options, job)
    with writer:
        _pack(listing, writer, options, workers, timeout_s, sandbox, advance)
        with clear_disk_errors(out):
            writer.finish()
    return summarise(out)


def summarise(out: Path, *, complete: bool = False) -> Summary:
    """The summary of a finished shard folder."""
    from avssl.shards.read import ShardSet

    index = layout.read_index(out)
    try:
        rejected = files.read_jsonl(out / layout.REJECTED)
    except (OSError, ValueError) as error:
        raise ShardError(f"{out / layout.REJECTED}: cannot be read ({error})") from None
    reasons = Counter(row["reason"] for row in rejected)
    return Summary(
        out=str(out),
        sources=index["sources"],
        rows=index["rows"],
        hours=float(ShardSet.open(out).duration_s.sum()) / 3600,
        shards=len(index["shards"]),
        bytes=sum(shard["bytes"] for shard in index["shards"]),
        rejected=len(rejected),
        rejected_by_reason=dict(sorted(reasons.items())),
        complete=complete,
    )


def _pack(
    listing: Listing,
    writer: ShardWriter,
    options: BuildOptions,
    workers: int,
    timeout_s: float,
    sandbox: Bounds | None,
    advance: Callable[..., None],
) -> None:
    done = writer.cursor.entry
    advance(done, "")
    if done == len(listing.entries):
        return
    function = functools.partial(_pack_task, options=options, timeout_s=timeout_s)
    with WorkerPool(function, workers, timeout_s * _HARD_TIMEOUT, sandbox) as pool:
        for task, result, following in _in_order(listing.entries, writer.cursor, pool, options, window=4 * workers):
            with clear_disk_errors(writer.out):
                if isinstance(result, Clip):
                    writer.add(result, following)
                else:
                    writer.reject(task.entry.source, result, following)
            note = f"{writer.rows} clips, {writer.bytes_written / 1e6:.1f} MB, {writer.rejected} rejected"
            advance(following.entry - done, note)
            done = following.entry


def _pack_task(task: _Task, descriptor: int | None, *, options: BuildOptions, timeout_s: float) -> Reply:
    assert descriptor is not None
    limit_cpu(timeout_s * _HARD_TIMEOUT)
    file = HandedFile(descriptor, task.entry.path)
    return to_answer(pack_clip(task.entry, task.clip, options, timeout_s, file))


def _in_order(
    entries: list[Entry], cursor: Cursor, pool: WorkerPool, options: BuildOptions, *, window: int
) -> Iterator[tuple[_Task, Clip | Rejected, Cursor]]:
    """Run the tasks in the pool; yield their results in the order of the listing, each with the cursor after it.

    Only the first `window` waiting tasks are under way, so memory is bounded by about two windows of clips. How many
    clips an entry has is known after its first; the others then step in right behind it.
    """
    queue: list[_Task] = []
    upcoming = iter(range(cursor.entry, len(entries)))
    if cursor.clip:
        number = next(upcoming)
        queue = [_Task(number, entries[number], clip, cursor.clips) for clip in range(cursor.clip, cursor.clips or 0)]
    started: set[tuple[int, int]] = set()
    outcomes: dict[tuple[int, int], Outcome | Lost] = {}
    while True:
        for _ in range(pool.free()):
            task = next((task for task in queue[:window] if task.place not in started), None)
            if task is None:
                number = next(upcoming, -1) if len(queue) < window else -1
                if number < 0:
                    break
                task = _Task(number, entries[number])
                queue.append(task)
            started.add(task.place)
            file = open_source(task.entry)
            if isinstance(file, Rejected):
                outcomes[task.place] = Outcome(task.clips or 1, file)
            else:
                pool.submit(task, file.descriptor)
        if not queue:
            return
        task = queue[0]
        if task.place not in outcomes:
            for ended, answer in pool.wait():
                outcome = answer
                if not isinstance(answer, Lost):
                    head, parts = answer
                    outcome = from_answer(head, parts, ended.entry, options)
                outcomes[ended.place] = outcome
                if ended.clips is None and isinstance(outcome, Outcome):
                    place = queue.index(ended)
                    queue[place + 1 : place + 1] = [
                        _Task(ended.number, ended.entry, clip, outcome.clips) for clip in range(1, outcome.clips)
                    ]
            continue
        queue.pop(0)
        started.discard(task.place)
        outcome = outcomes.pop(task.place)
        if isinstance(outcome, Lost):
            clips = task.clips or 1
            start_s = (task.entry.start_s or 0.0) + task.clip * options.clip_s if task.clip else task.entry.start_s
            result: Clip | Rejected = Rejected(outcome.reason, outcome.detail, start_s)
        else:
            clips, result = outcome.clips, outcome.result
        more = task.clip + 1 < clips
        yield task, result, Cursor(task.number, task.clip + 1, clips) if more else Cursor(task.number + 1)
