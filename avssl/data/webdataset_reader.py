"""Read shards from front to back through the `webdataset` library: local ones, and remote ones from the cache.

What comes when is planned from the manifest before anything is read. In an epoch the shards are shuffled, their rows
laid end to end, and rank r takes the r-th of `world_size` equal pieces (so two ranks may share a shard, each
reading its own rows of it); within its piece rows leave through a shuffle buffer. Hence ranks are disjoint, complete
and equally long, and to resume is to plan again and leave out what is gone: shards with nothing left are not opened.

One thread a rank reads; the members' bytes travel with the requests to the workers, which decode. So the order does not
depend on the number of workers. The next shard is fetched while one is read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from avssl.ahead import ahead
from avssl.data import order
from avssl.data.config import DataConfig
from avssl.data.dataset import Request
from avssl.errors import ConfigError, ShardError
from avssl.shards import ShardSet
from avssl.shards.open_file import OpenFile

_BUFFER_BYTES = 1 << 20


class StreamedBatches:
    """The requests of each batch with their members' bytes, from `position` (samples of all ranks) on."""

    def __init__(
        self,
        shards: ShardSet,
        rows: np.ndarray,
        config: DataConfig,
        *,
        rank: int,
        world_size: int,
        position: int,
        end: int | None,
    ):
        self.shards, self.rows, self.config = shards, rows, config
        self.rank, self.world_size, self.position, self.end = rank, world_size, position, end
        self._length = len(order.rank_slice(range(len(rows) * config.draws_per_row), rank, world_size))
        """Samples of this rank in an epoch."""
        if self._length == 0:
            raise ConfigError(f"reader webdataset cannot share {len(rows)} usable rows among {world_size} ranks")

    def __iter__(self) -> Iterator[list[Request]]:
        yield from ahead(self._batches(), depth=2)

    def _batches(self) -> Iterator[list[Request]]:
        requests = self._requests()
        for batch in order.batches(self.position, self.config.batch_size, end=self.end):
            yield [next(requests) for _ in order.rank_slice(batch, self.rank, self.world_size)]

    def _requests(self) -> Iterator[Request]:
        epoch, gone = divmod(self.position // self.world_size, self._length)
        while True:
            plan = Plan(self.shards.shard[self.rows], epoch, self.config, self.rank, self.world_size)
            yield from self._epoch(plan, epoch, gone)
            epoch, gone = epoch + 1, 0

    def _epoch(self, plan: Plan, epoch: int, gone: int) -> Iterator[Request]:
        arriving = self._arriving(plan, plan.leave[gone:])
        held: dict[int, dict[str, bytes]] = {}
        for place in plan.leave[gone:].tolist():
            while place not in held:
                arrived, members = next(arriving)
                held[arrived] = members
            entry = order.Entry(epoch, int(self.rows[plan.rows[place]]), int(plan.draws[place]))
            yield Request(entry, held.pop(place))

    def _arriving(self, plan: Plan, wanted: np.ndarray) -> Iterator[tuple[int, dict[str, bytes]]]:
        """The members of the wanted places of a plan, in the order in which they lie in the shards."""
        wanted = np.sort(wanted)
        runs = np.split(wanted, np.flatnonzero(np.diff(plan.visits[wanted])) + 1) if len(wanted) else []
        shards = [plan.shards[plan.visits[places[0]]] for places in runs]
        opened = ahead((self.shards.open_shard(shard) for shard in shards), depth=1)
        with closing(opened):
            for shard, file, places in zip(shards, opened, runs, strict=True):
                yield from self._read(self.shards.shard_path(shard), file, places.tolist(), plan)

    def _read(self, name: str, file: OpenFile, places: list[int], plan: Plan) -> Iterator[tuple[int, dict[str, bytes]]]:
        records = [self.shards.record(int(self.rows[plan.rows[place]])) for place in places]
        missing = {record["id"]: (place, self._sizes(record)) for place, record in zip(places, records, strict=True)}
        try:
            for key, members in _samples(name, file, {key: sizes for key, (_, sizes) in missing.items()}):
                place, sizes = missing.pop(key)
                if {extension: len(data) for extension, data in members.items()} != sizes:
                    raise ShardError(f"{name}: sample {key} is not the one that the manifest describes")
                yield place, members
                if not missing:
                    return
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise ShardError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error
        raise ShardError(f"{name}: sample {next(iter(missing))} is missing; the manifest is of other shards")

    def _sizes(self, record: dict[str, Any]) -> dict[str, int]:
        """Extension and size in bytes of the members that are decoded."""
        sizes = {extension: size for extension, (_, size) in record["members"].items() if extension != "json"}
        if len(sizes) > 1:  # picture and sound are members of their own
            unused = [name for name, spec in (("mp4", self.config.video), ("flac", self.config.audio)) if not spec]
            sizes = {extension: size for extension, size in sizes.items() if extension not in unused}
        return sizes


class Plan:
    """The order of one rank's samples in one epoch, and what is read for it. A place is an index of these arrays."""

    def __init__(self, shard_of: np.ndarray, epoch: int, config: DataConfig, rank: int, world_size: int):
        """`shard_of` [N]: the shard of each usable row, ascending."""
        starts = np.flatnonzero(np.diff(shard_of, prepend=-1))
        counts = np.diff(starts, append=len(shard_of))
        turns = [
            order.order(config.seed, epoch * config.draws_per_row + draw, len(starts))
            if config.shuffle
            else np.arange(len(starts))
            for draw in range(config.draws_per_row)
        ]
        visited = np.concatenate(turns)
        ends = np.cumsum(counts[visited])
        piece = order.rank_slice(range(int(ends[-1])), rank, world_size)
        within = [piece.start, max(piece.start, piece.stop - 1)]
        first, last = np.searchsorted(ends, within, side="right").clip(max=len(ends) - 1)
        visits = np.arange(first, last + 1)
        rows = [np.arange(starts[i], starts[i] + counts[i]) for i in visited[visits]]
        before = piece.start - int(ends[first] - counts[visited[first]])  # of the first visit, another rank's
        mine = slice(before, before + len(piece))
        self.rows = np.concatenate(rows)[mine]
        self.visits = np.repeat(visits, counts[visited[visits]])[mine]
        self.draws = self.visits // len(starts)
        self.shards = shard_of[starts[visited]].tolist()
        """The shard of each visit."""
        self.leave = np.arange(len(piece))
        """Places in the order of the stream."""
        if config.shuffle:
            self.leave = order.buffered(len(piece), config.stream_buffer, config.seed, epoch, rank)


def _samples(name: str, file: OpenFile, wanted: dict[str, dict[str, int]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of the wanted samples of a tar, in its order."""
    from webdataset import tariterators

    def is_wanted(member: str) -> bool:
        key, _, extension = member.partition(".")
        return extension in wanted.get(key, ())

    stream = io.BufferedReader(_Stream(file, name), _BUFFER_BYTES)
    files = tariterators.tar_file_expander([{"url": name, "stream": stream}], select_files=is_wanted)
    for sample in tariterators.group_by_keys(files, lcase=False):
        yield sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}


class _Stream(io.RawIOBase):
    """An open file from its beginning on."""

    def __init__(self, file: OpenFile, name: str):
        self._file, self._name, self._place, self._end = file, name, 0, file.size()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._end - self._place)
        buffer[:size] = self._file.read(self._place, size, self._name)
        self._place += size
        return size
