"""Batches without end, and the exact place in them."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from avssl.data import order
from avssl.data.anchors import AnchorTable, anchor_path
from avssl.data.collate import Batch
from avssl.data.config import DataConfig
from avssl.data.dataset import ClipDataset, Outcome, Request, Skipped
from avssl.data.labels import Labels
from avssl.data.parcel import Parcel
from avssl.data.webdataset_reader import StreamedBatches
from avssl.data.worker import is_lost_worker, process_options
from avssl.errors import AvsslError, BudgetError, ConfigError, ShardError
from avssl.shards import ShardSet
from avssl.spatial.config import ViewConfig

Groups = Sequence[np.ndarray] | np.ndarray
"""Rows [n] of each group."""

_ALWAYS_ALLOWED = 10  # skipped samples that never stop a run, however short it is
_NAMED = 100  # skipped samples kept by name


class Loader:
    """An iterator over batches (see `avssl.data.collate`) of one rank.

    The order of samples, their moments and their augmentation are functions of the config and the shards; they do
    not depend on `workers` or `prefetch`, nor (with `reader: index`) on the number of ranks. `state_dict()` tells
    the position after the last batch handed out; what workers have prepared beyond it does not count.

    `endless=False` ends the iteration after the first epoch (for evaluation), with a smaller last batch.
    Samples that cannot be decoded are left out of their batch, counted in `skipped` and named in `skipped_samples`;
    `BudgetError` if they exceed `config.max_skipped`. A damaged shard raises `ShardError`.

    classes: class number by name, for `config.labels`.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        rank: int = 0,
        world_size: int = 1,
        position: int = 0,
        endless: bool = True,
        classes: Mapping[str, int] | None = None,
    ):
        if not config.shards:
            raise ConfigError("data.shards names no folder; give one written by avssl-shards build")
        _check_parts(config, world_size)
        if config.replacement and not endless:
            raise ConfigError("data.replacement: with it no epoch has all rows; set it to false for one that ends")
        self.config, self.rank, self.world_size, self.position = config, rank, world_size, position
        self.shards = open_shards(config)
        self.labels = labels_of(self.shards, config, classes)
        self._anchors = (
            AnchorTable.read(anchor_path(config, self.shards, self.labels)) if self.labels and config.anchors else None
        )
        self.rows = usable_rows(self.shards, config, self.labels)
        """Manifest rows [N] that are drawn."""
        self.groups: Groups
        """What comes equally often: the rows of each group, each row alone unless `config.sample_by` says otherwise."""
        self._classes: list[int] | None = None  # of the groups
        if config.sample_by == "class" and self.labels:
            by_class = self.labels.by_class(self.rows)
            self.groups, self._classes = list(by_class.values()), list(by_class)
        else:
            self.groups = groups_of(self.shards, self.rows, config.sample_by)
        self._end = None if endless else len(self.groups) * config.draws_per_row
        self._outcomes: Iterator[Outcome] | None = None
        self._requested = 0
        self.skipped: Counter[str] = Counter()
        self.skipped_samples: deque[Skipped] = deque(maxlen=_NAMED)
        self.wait_s = 0.0

    @property
    def rows_total(self) -> int:
        """Rows of the manifest: every `row` of a batch is smaller. Tables kept by row have this length."""
        return len(self.shards)

    @property
    def steps_per_pass(self) -> float:
        """Steps until as many samples were drawn as there are usable rows; seldom a whole number."""
        return len(self.rows) / self.config.batch_size

    @property
    def summary(self) -> str:
        """One sentence for the log: what is read and what was left out."""
        wanted = [name for name in ("video", "audio") if getattr(self.config, name)]
        text = f"{len(self.rows)} of {self.rows_total} rows with {' and '.join(wanted)}"
        for name, has in (("video", self.shards.has_video), ("audio", self.shards.has_audio)):
            missing = int(np.count_nonzero(~np.asarray(has)))
            if name in wanted and missing:
                kept = name == "audio" and self.config.audio is not None and self.config.audio.optional
                text += f", {missing} without {name} {'kept' if kept else 'left out'}"
        if self.labels:
            text += f", {int(np.count_nonzero(~self.labels.known))} without a known class left out"
            if self.labels.unknown:
                name, count = self.labels.unknown.most_common(1)[0]
                text += f" ({len(self.labels.unknown)} unknown labels, most often {name!r}: {count})"
        if self.config.sample_by != "row":
            text += f", drawn by {self.config.sample_by}, of which there are {len(self.groups)}"
        return f"{text}; {self.steps_per_pass:.6g} steps of {self.config.batch_size} a pass"

    def state_dict(self) -> dict[str, Any]:
        """The position (samples of all ranks handed out) and everything that the order of samples depends on."""
        return {"position": self.position, **self._order_key()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch of that state. `ShardError` if the order of samples would be another."""
        for name, value in self._order_key().items():
            if state.get(name) != value:
                raise ShardError(
                    f"the checkpoint's data position cannot be continued: its {name} was {state.get(name)!r}, now it is"
                    f" {value!r}; use the same shards and data options, or start a new run from the model"
                )
        self.close()
        self.position = int(state["position"])

    def _order_key(self) -> dict[str, Any]:
        key = {
            "manifest_sha256": self.shards.manifest_sha256,
            "rows": len(self.rows),
            "seed": self.config.seed,
            "draws_per_row": self.config.draws_per_row,
            "shuffle": self.config.shuffle,
            "replacement": self.config.replacement,
            "reader": self.config.reader,
        }
        if self.config.sample_by != "row":
            key["sample_by"] = self.config.sample_by
        if self.labels:
            key["classes"] = self.labels.sha256
        if self.config.reader == "webdataset":  # ranks read different shards, so their number changes the order
            key |= {"world_size": self.world_size, "stream_buffer": self.config.stream_buffer}
        return key

    def change(self, *, batch_size: int, views: ViewConfig | None) -> None:
        """Go on from the present position with other batches: of this size, seen from such views."""
        self.close()
        self.config = dataclasses.replace(self.config, batch_size=batch_size, views=views)
        _check_parts(self.config, self.world_size)

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        try:
            while (batch := self._next_batch()) is None:
                pass
            return batch
        except (AvsslError, StopIteration):
            self.close()  # now: the workers of a loader that only an error's traceback keeps alive would stay
            raise

    def _next_batch(self) -> Batch | None:
        """The next batch, or None if none of its samples could be used."""
        numbers = next(order.batches(self.position, self.config.batch_size, end=self._end), range(0))
        mine = order.rank_slice(numbers, self.rank, self.world_size)
        if not mine:
            raise StopIteration
        started = time.perf_counter()
        outcome = self._next_outcome()
        self.wait_s += time.perf_counter() - started
        if outcome.failure is not None:
            raise outcome.failure
        self.position = numbers.stop
        self._count(len(mine), outcome.skipped)
        if outcome.batch is None and self.world_size > 1:  # one rank cannot leave out a step that the others take
            raise BudgetError(f"no sample of a batch could be used; the last: {self.skipped_samples[-1]}")
        assert not isinstance(outcome.batch, Parcel)
        return outcome.batch

    def _next_outcome(self) -> Outcome:
        try:
            if self._outcomes is None:
                self._outcomes = self._start()
            return next(self._outcomes)
        except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
            if not (self.config.workers and is_lost_worker(error)):
                raise
            raise AvsslError(
                "a data worker process ended unexpectedly, most often killed for want of memory: lower data.workers,"
                f" data.prefetch or data.batch_size ({str(error).partition(chr(10))[0]})"
            ) from error

    def _count(self, requested: int, skipped: list[Skipped]) -> None:
        self._requested += requested
        self.skipped.update(sample.reason for sample in skipped)
        self.skipped_samples.extend(skipped)
        total = self.skipped.total()
        if total > max(_ALWAYS_ALLOWED, self.config.max_skipped * self._requested):
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.skipped.most_common())
            raise BudgetError(
                f"{total} of {self._requested} samples could not be used ({reasons}), more than data.max_skipped"
                f" {self.config.max_skipped} allows; the last: {self.skipped_samples[-1]}; check the shards with"
                " avssl-shards verify"
            )

    def _start(self) -> Iterator[Outcome]:
        """Batches from the present position on, decoded in workers or here. One iteration of torch's loader spans all
        epochs, so its workers live as long as this loader is used."""
        place: dict[str, Any] = {"rank": self.rank, "world_size": self.world_size}
        place |= {"position": self.position, "end": self._end}
        requests: Iterable[list[Request]]
        if self.config.reader == "webdataset":
            requests = StreamedBatches(self.shards, self.rows, self.config, **place)
        else:
            requests = IndexedBatches(self.groups, self.config, classes=self._classes, **place)
        workers = self.config.workers
        loader = torch.utils.data.DataLoader(
            ClipDataset(self.shards, self.config, self.labels, self._anchors),
            batch_sampler=requests,
            collate_fn=_unchanged,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the global one belongs to the model
            **(process_options(self.config.prefetch) if workers else {}),
        )
        return iter(loader)

    def close(self) -> None:
        """Let the workers go; iterating again starts new ones at the present position."""
        self._outcomes = None


class IndexedBatches:
    """The requests of each batch of one rank, from `position` (samples of all ranks) on."""

    def __init__(
        self,
        groups: Groups,
        config: DataConfig,
        *,
        rank: int,
        world_size: int,
        position: int,
        end: int | None,
        classes: Sequence[int] | None = None,
    ):
        self.groups, self.config, self.classes = groups, config, classes
        self.rank, self.world_size, self.position, self.end = rank, world_size, position, end

    def __iter__(self) -> Iterator[list[Request]]:
        config = self.config
        for batch in order.batches(self.position, config.batch_size, end=self.end):
            mine = order.rank_slice(batch, self.rank, self.world_size)
            entries = order.entries(
                mine,
                rows=len(self.groups),
                draws=config.draws_per_row,
                seed=config.seed,
                shuffle=config.shuffle,
                replacement=config.replacement,
            )
            yield [self._of_class(entry) if self.classes else Request(self._with_row(entry)) for entry in entries]

    def _of_class(self, entry: order.Entry) -> Request:
        """The next row of the class that the entry stands for: every row of a class comes before any comes again."""
        assert self.classes
        group, number = self.groups[entry.row], self.classes[entry.row]
        visit = entry.epoch * self.config.draws_per_row + entry.draw
        row = int(group[order.in_turn(self.config.seed, number, visit, len(group))])
        return Request(entry._replace(row=row), drawn_class=number)

    def _with_row(self, entry: order.Entry) -> order.Entry:
        """The entry, which stands for a group, with a manifest row of it."""
        group = self.groups[entry.row]
        number = order.picked(self.config.seed, entry, len(group)) if len(group) > 1 else 0
        return entry._replace(row=int(group[number]))


def _check_parts(config: DataConfig, world_size: int) -> None:
    if config.batch_size % world_size:
        fitting = [str(size) for size in range(1, config.batch_size + 1) if config.batch_size % size == 0]
        raise ConfigError(
            f"data.batch_size {config.batch_size} does not divide into {world_size} equal parts; choose a multiple of"
            f" {world_size}, or {', '.join(fitting[:-1])} or {fitting[-1]} processes"
        )


def open_shards(config: DataConfig) -> ShardSet:
    """The shards that a config names. ConfigError if random access to remote ones would fetch them again and again."""
    shards = ShardSet.open(config.shards, cache=config.cache)
    needed_gb = shards.remote_bytes / 1e9
    if config.reader == "index" and needed_gb > config.cache.size_gb:
        raise ConfigError(
            f"data.reader 'index' wants any row at any time, but the remote shards have {needed_gb:.3f} GB and"
            f" data.cache.size_gb is {config.cache.size_gb:g}; raise it, or set data.reader to webdataset"
        )
    return shards


def labels_of(shards: ShardSet, config: DataConfig, classes: Mapping[str, int] | None) -> Labels | None:
    """What `config.labels` says of the rows; None without."""
    if config.labels is None:
        return None
    if not classes:
        raise ConfigError("data.labels is set, but this model has no classes; set it to null")
    return Labels(shards, config.labels, classes)


def usable_rows(shards: ShardSet, config: DataConfig, labels: Labels | None = None) -> np.ndarray:
    """The manifest rows that have every modality the config wants (and a class, if those matter), ascending."""
    usable = np.ones(len(shards), bool)
    if config.video:
        usable &= shards.has_video
    if config.audio and not config.audio.optional:
        usable &= shards.has_audio
    if labels:
        usable &= labels.known
    if not usable.any():
        wanted = [name for name in ("video", "audio") if getattr(config, name)]
        raise ShardError(f"{', '.join(config.shards)}: none of its {len(shards)} rows has {' and '.join(wanted)}")
    return np.flatnonzero(usable)


def groups_of(shards: ShardSet, rows: np.ndarray, sample_by: str) -> Groups:
    """The rows of each group that `data.sample_by` makes, groups by their first row.

    Raises ConfigError if it is a column that a row does not have.
    """
    if sample_by == "row":
        return rows[:, None]
    members: dict[Any, list[int]] = {}
    for row in rows.tolist():
        record = shards.record(row)
        value = record["source"] if sample_by == "source" else record["meta"].get(sample_by)
        if value is None:
            raise ConfigError(
                f"data.sample_by is {sample_by!r}, but row {row} ({record['id']}) has no such column; choose row,"
                " source or a column that every row of the list has"
            )
        members.setdefault(str(value), []).append(row)
    return [np.array(group) for group in members.values()]


def _unchanged(outcome: Any) -> Any:
    """Batches are collated where they are decoded."""
    return outcome
