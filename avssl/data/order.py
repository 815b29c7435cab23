"""Which sample comes when: pure functions of (seed, epoch), never of ranks' or workers' doings.

The stream of samples is endless and numbered g = 0, 1, 2, ... An epoch is a fresh permutation of its
`rows * draws` entries; entry v stands for row v % rows and draw v // rows. With replacement an epoch is `rows`
independent draws, its draw numbers those of the places in it. A batch is the next `batch_size` numbers
of the stream, across the border of epochs where it falls so, and each rank takes one contiguous slice of it.
Hence the position of a run is one integer, equal for all ranks, and another number of ranks continues the very same
global batches.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from avssl.data.shuffle import Shuffle, number_below

TABLE_ENTRIES = 1 << 24
"""An epoch of more entries is not laid out in memory: each entry is computed when its turn comes."""
_ORDER, _BUFFER, _REPLACEMENT, _PICK, _TURN = (
    1,
    2,
    3,
    4,
    5,
)  # keeps these generators apart from each other and from `avssl.rng`'s


class Entry(NamedTuple):
    """One sample to make: a manifest row in an epoch; `draw` tells apart the times that it comes in that epoch."""

    epoch: int
    row: int
    draw: int


@functools.lru_cache(maxsize=2)  # a batch may touch two epochs
def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The permutation of 0..n-1 of one epoch, read-only."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch), spawn_key=(_ORDER,))))
    permutation = generator.permutation(n)
    permutation.flags.writeable = False
    return permutation


def entry_at(seed: int, epoch: int, n: int, position: int) -> int:
    """The entry at a position of the permutation of 0..n-1 of an epoch."""
    if n <= TABLE_ENTRIES:
        return int(order(seed, epoch, n)[position])
    return _shuffle(seed, epoch, n)[position]


@functools.lru_cache(maxsize=2)
def _shuffle(seed: int, epoch: int, n: int) -> Shuffle:
    return Shuffle(n, np.random.SeedSequence((seed, epoch), spawn_key=(_ORDER,)))


def drawn_at(seed: int, epoch: int, n: int, position: int) -> int:
    """The draw from 0..n-1 with replacement at a position of an epoch."""
    if n <= TABLE_ENTRIES:
        return int(drawn(seed, epoch, n)[position])
    return number_below(n, np.random.SeedSequence((seed, epoch, position), spawn_key=(_REPLACEMENT,)))


@functools.lru_cache(maxsize=2)
def drawn(seed: int, epoch: int, n: int) -> np.ndarray:
    """The n draws of one epoch from 0..n-1 with replacement, read-only."""
    sequence = np.random.SeedSequence((seed, epoch), spawn_key=(_REPLACEMENT,))
    rows = np.random.Generator(np.random.Philox(sequence)).integers(n, size=n)
    rows.flags.writeable = False
    return rows


def entries(
    numbers: range, *, rows: int, draws: int = 1, seed: int = 0, shuffle: bool = True, replacement: bool = False
) -> list[Entry]:
    """The entries with these numbers of the endless stream; `row` counts from 0 to rows - 1."""
    length = rows * draws
    found = []
    for number in numbers:
        epoch, position = divmod(number, length)
        if replacement:
            found.append(Entry(epoch, drawn_at(seed, epoch, rows, position), position))
            continue
        value = entry_at(seed, epoch, length, position) if shuffle else position
        draw, row = divmod(value, rows)
        found.append(Entry(epoch, row, draw))
    return found


def picked(seed: int, entry: Entry, n: int) -> int:
    """Which of the n rows that an entry stands for it is this time (where entries stand for sources of rows)."""
    sequence = np.random.SeedSequence((seed, *entry), spawn_key=(_PICK,))
    return int(np.random.Generator(np.random.Philox(sequence)).integers(n))


def in_turn(seed: int, group: int, visit: int, n: int) -> int:
    """Which of the n rows of a group comes at its `visit`-th visit: all of them once, in a fresh order each time."""
    time_around, place = divmod(visit, n)
    return int(_turns(seed, group, time_around, n)[place])


@functools.lru_cache(maxsize=2048)
def _turns(seed: int, group: int, time_around: int, n: int) -> np.ndarray:
    sequence = np.random.SeedSequence((seed, group, time_around), spawn_key=(_TURN,))
    return np.random.Generator(np.random.Philox(sequence)).permutation(n)


def rank_slice(batch: range, rank: int, world_size: int) -> range:
    """The contiguous part of a global batch that belongs to a rank; equal parts where the size allows."""
    return batch[rank * len(batch) // world_size : (rank + 1) * len(batch) // world_size]


def batches(position: int, batch_size: int, *, end: int | None = None) -> Iterator[range]:
    """Global batches as ranges of stream numbers from `position` on; the last one before `end` may be smaller."""
    while end is None or position < end:
        stop = position + batch_size if end is None else min(position + batch_size, end)
        yield range(position, stop)
        position = stop


def buffered(n: int, buffer: int, seed: int, epoch: int, part: int) -> np.ndarray:
    """The order in which 0..n-1 leave a shuffle buffer that they enter in turn, as indices.

    A pure function, so that a reader that streams can plan ahead, and resume by leaving out what is gone.
    `part` tells apart streams of the same epoch.
    """
    sequence = np.random.SeedSequence((seed, epoch, part), spawn_key=(_BUFFER,))
    generator = np.random.Generator(np.random.Philox(sequence))
    held = list(range(min(buffer, n)))
    picks = (generator.random(n) * np.minimum(len(held), n - np.arange(n))).astype(np.int64)
    left = np.empty(n, np.int64)
    for i, pick in enumerate(picks):
        left[i] = held[pick]
        if len(held) + i < n:
            held[pick] = len(held) + i
        else:
            held[pick] = held[-1]
            held.pop()
    return left
