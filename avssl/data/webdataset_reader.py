"""Read shards from front to back through the `webdataset` library: remote ones (http, s3, … by fsspec) and local.

What comes when is planned from the manifest before anything is read. In an epoch the shards are shuffled, their rows
laid end to end, and rank r takes the r-th of `world_size` equal pieces (so two ranks may share a shard, each
reading its own rows of it); within its piece rows leave through a shuffle buffer. Hence ranks are disjoint, complete
and equally long, and to resume is to plan again and leave out what is gone: shards with nothing left are not opened.

One thread a rank reads; the members' bytes travel with the requests to the workers, which decode. So the order does not
depend on the number of workers. No shell command is ever run for a URL.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avssl.ahead import ahead
from avssl.data import order
from avssl.data.config import DataConfig
from avssl.data.dataset import Request
from avssl.errors import AvsslError, ConfigError, ShardError
from avssl.shards import ShardSet

_ATTEMPTS = 3  # a connection may break; what has arrived is not asked for again
_PAUSE_S = 2.0  # before the second attempt; twice that before the third
_FETCH_BYTES = 1 << 20


class StreamedShards:
    """A ShardSet whose tars are read through URLs. Of remote folders, index and manifest are fetched at once."""

    def __init__(self, folders: list[str]):
        self._fetched = tempfile.TemporaryDirectory(prefix="avssl-manifest-")
        self._url_of: dict[Path, str] = {}
        local = [self._localise(folder.rstrip("/"), number) for number, folder in enumerate(folders)]
        self.set = ShardSet.open(local)

    def _localise(self, folder: str, number: int) -> Path:
        if "://" not in folder:
            return Path(folder)
        copy = Path(self._fetched.name) / str(number)
        copy.mkdir()
        for name in ("index.json", "manifest.jsonl"):
            url = f"{folder}/{name}"
            try:
                with _open_url(url) as source, (copy / name).open("wb") as target:
                    while block := source.read(_FETCH_BYTES):
                        target.write(block)
            except AvsslError:
                raise
            except Exception as error:  # each protocol of fsspec raises its own kinds
                raise ShardError(
                    f"{url}: cannot be fetched ({error}); data.shards wants the address of a shard folder"
                ) from error
        self._url_of[copy] = folder
        return copy

    def url(self, shard: int) -> str:
        path = self.set.path(shard)
        return f"{self._url_of[path.parent]}/{path.name}" if path.parent in self._url_of else str(path)


class StreamedBatches:
    """The requests of each batch with their members' bytes, from `position` (samples of all ranks) on."""

    def __init__(
        self,
        shards: StreamedShards,
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
            plan = Plan(self.shards.set.shard[self.rows], epoch, self.config, self.rank, self.world_size)
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
        for places in np.split(wanted, np.flatnonzero(np.diff(plan.visits[wanted])) + 1):
            yield from self._read(plan.shards[plan.visits[places[0]]], places.tolist(), plan)

    def _read(self, shard: int, places: list[int], plan: Plan) -> Iterator[tuple[int, dict[str, bytes]]]:
        url = self.shards.url(shard)
        records = [self.shards.set.record(int(self.rows[plan.rows[place]])) for place in places]
        missing = {record["id"]: (place, self._sizes(record)) for place, record in zip(places, records, strict=True)}
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                for key, members in _samples(url, {key: sizes for key, (_, sizes) in missing.items()}):
                    place, sizes = missing.pop(key)
                    if {name: len(data) for name, data in members.items()} != sizes:
                        raise ShardError(f"{url}: sample {key} is not the one that the manifest describes")
                    yield place, members
                    if not missing:
                        return
                raise ShardError(f"{url}: sample {next(iter(missing))} is missing; the manifest is of other shards")
            except AvsslError:
                raise
            except Exception as error:  # each protocol of fsspec raises its own kinds, tarfile others
                if attempt == _ATTEMPTS:
                    raise ShardError(f"{url}: cannot be read ({type(error).__name__}: {error})") from error
                time.sleep(_PAUSE_S * attempt)

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
        shards, starts, counts = np.unique(shard_of, return_index=True, return_counts=True)
        turns = [
            order.order(config.seed, epoch * config.draws_per_row + draw, len(shards))
            if config.shuffle
            else np.arange(len(shards))
            for draw in range(config.draws_per_row)
        ]
        visited = np.concatenate(turns)
        rows = np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in visited])
        draws = np.repeat(np.arange(config.draws_per_row), len(shard_of))
        visits = np.repeat(np.arange(len(visited)), counts[visited])
        piece = order.rank_slice(range(len(rows)), rank, world_size)
        self.rows, self.draws, self.visits = (values[piece.start : piece.stop] for values in (rows, draws, visits))
        self.shards = shards[visited].tolist()
        """The shard of each visit."""
        self.leave = np.arange(len(piece))
        """Places in the order of the stream."""
        if config.shuffle:
            self.leave = order.buffered(len(piece), config.stream_buffer, config.seed, epoch, rank)


def _samples(url: str, wanted: dict[str, dict[str, int]]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of the wanted samples of a tar, in its order."""
    from webdataset import tariterators

    def is_wanted(name: str) -> bool:
        key, _, extension = name.partition(".")
        return extension in wanted.get(key, ())

    with _open_url(url) as stream:
        files = tariterators.tar_file_expander([{"url": url, "stream": stream}], select_files=is_wanted)
        for sample in tariterators.group_by_keys(files, lcase=False):
            yield sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}


def _open_url(url: str) -> Any:
    """The bytes of a local path or of a URL with any protocol that fsspec knows, as a file to read."""
    import fsspec

    try:
        return fsspec.open(url, "rb").open()
    except (ImportError, ValueError) as error:  # no such protocol, or its package is not installed
        raise ConfigError(f"{url}: {error}") from error
