"""Memory banks: one slowly moving unit vector for every row of the data set (methods A.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl import rng

START_ROWS = 65536  # random start vectors are drawn so many at a time
GATHERED_ROWS = 8192  # of each rank's part are sent at once when a whole bank is collected


class MemoryBank(nn.Module):
    """Targets `t <- normalise(momentum * t + (1 - momentum) * embedding)`, random unit vectors at the start.

    The start depends on `seed` only, and updates only on the gathered batch, so all ranks hold the same bank without
    ever sending it. It is stored as `dtype` and computed in float32.
    """

    memory: Tensor

    def __init__(
        self,
        rows: int,
        dim: int,
        *,
        momentum: float = 0.5,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.momentum = momentum
        memory = torch.empty(rows, dim, dtype=dtype)
        for first, vectors in _start_vectors(0, rows, rows, dim, seed):
            memory[first : first + len(vectors)] = vectors
        self.register_buffer("memory", memory)

    def read(self, rows: Tensor) -> Tensor:
        """The targets of any int64 index tensor: [..., D] float32, without gradient."""
        return self.memory[rows].float()

    @torch.no_grad()
    def update(self, rows: Tensor, embeddings: Tensor) -> None:
        """Move the targets of `rows` [G] towards `embeddings` [G, D] (unit vectors, in global sample order).

        Where a row comes more than once, its last sample counts and the earlier ones do not.
        """
        rows, last = last_of_each(rows)
        self.memory[rows] = _moved(self.memory[rows], embeddings[last], self.momentum)


class Exchange(Protocol):
    """The part of the ranks that a sharded bank needs (`avssl.tasks.base.Ranks`)."""

    rank: int
    size: int

    def exchange(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        """Send counts[r] consecutive items of `part` to each rank r; returns what all sent here, in rank order."""

    def gather(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        """The parts [n_r, ...] of all ranks, concatenated in rank order."""


class ShardedMemoryBank(nn.Module):
    """A `MemoryBank` of which each rank holds one contiguous part; the same numbers.

    `shard` [n, D] are the rows `first` to `first + n` of the whole. All ranks call `read` and `whole` alike; `update`
    needs no exchange.
    """

    shard: Tensor

    def __init__(
        self,
        rows: int,
        dim: int,
        *,
        rank: int,
        size: int,
        momentum: float = 0.5,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.momentum = momentum
        self.borders = [rows * number // size for number in range(size + 1)]
        """Rank r holds the rows from borders[r] to borders[r + 1]."""
        self.first, stop = self.borders[rank], self.borders[rank + 1]
        shard = torch.empty(stop - self.first, dim, dtype=dtype)
        for start, vectors in _start_vectors(self.first, stop, rows, dim, seed):
            low, high = max(start, self.first), min(start + len(vectors), stop)
            shard[low - self.first : high - self.first] = vectors[low - start : high - start]
        self.register_buffer("shard", shard)

    @torch.no_grad()
    def read(self, rows: Tensor, ranks: Exchange) -> Tensor:
        """The targets of any int64 index tensor: [..., D] float32. Each distinct row is asked for once."""
        distinct, inverse = rows.unique(return_inverse=True)
        borders = torch.tensor(self.borders, device=rows.device)
        asked = torch.searchsorted(distinct, borders).diff()
        answered = ranks.exchange(asked, [1] * ranks.size).tolist()
        wanted = ranks.exchange(distinct, asked.tolist())
        return ranks.exchange(self.shard[wanted - self.first], answered)[inverse].float()

    @torch.no_grad()
    def update(self, rows: Tensor, embeddings: Tensor) -> None:
        """As `MemoryBank.update`, with the same gathered batch on all ranks; each moves the rows it holds."""
        rows, last = last_of_each(rows)
        here = (rows >= self.first) & (rows < self.first + len(self.shard))
        place = rows[here] - self.first
        self.shard[place] = _moved(self.shard[place], embeddings[last[here]], self.momentum)

    @torch.no_grad()
    def whole(self, ranks: Exchange) -> Tensor:
        """All rows [N, D] on the CPU of rank 0, as `MemoryBank.memory` holds them: what a checkpoint stores.

        Collected in blocks, so that no device holds more of it than before; other ranks get none, [0, D].
        """
        rows = self.borders[-1] if ranks.rank == 0 else 0
        whole = torch.empty(rows, self.shard.shape[1], dtype=self.shard.dtype)
        lengths = [stop - start for start, stop in itertools.pairwise(self.borders)]
        for first in range(0, max(lengths), GATHERED_ROWS):
            counts = [min(max(0, length - first), GATHERED_ROWS) for length in lengths]
            parts = ranks.gather(self.shard[first : first + counts[ranks.rank]], counts).split(counts)
            if ranks.rank == 0:
                for border, part in zip(self.borders, parts, strict=False):
                    whole[border + first : border + first + len(part)] = part.cpu()
        return whole

    @torch.no_grad()
    def take(self, whole: Tensor) -> None:
        """Set the shard from all rows [N, D], of any floating precision."""
        self.shard.copy_(whole[self.first : self.first + len(self.shard)])


def last_of_each(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of `rows` [G] and the position of the last occurrence of each."""
    distinct, inverse = torch.unique(rows, return_inverse=True)
    position = torch.arange(len(rows), device=rows.device)
    last = torch.zeros_like(distinct).scatter_reduce_(0, inverse, position, "amax", include_self=False)
    return distinct, last


def draw_negatives(own: Tensor, total: int, count: int, generator: torch.Generator) -> Tensor:
    """[B, count] numbers below `total`, uniform with replacement over those that are not the sample's `own` [B].

    The generator must live on the device of `own`.
    """
    drawn = torch.randint(total - 1, (len(own), count), generator=generator, device=own.device)
    return drawn + (drawn >= own[:, None])


def _start_vectors(first: int, stop: int, rows: int, dim: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Random unit vectors of the blocks that rows `first` to `stop` lie in, each with the number of its first row.

    Every block has a generator of its own, so that a part of a bank costs no more than its size.
    """
    for start in range(first // START_ROWS * START_ROWS, stop, START_ROWS):
        generator = torch.Generator().manual_seed(rng.step_seed(seed, start) if start else seed)
        yield start, F.normalize(torch.randn(min(START_ROWS, rows - start), dim, generator=generator), dim=-1)


def _moved(memory: Tensor, embeddings: Tensor, momentum: float) -> Tensor:
    return F.normalize(torch.lerp(embeddings.float(), memory.float(), momentum), dim=-1).to(memory.dtype)
