"""A memory bank: one slowly moving unit vector for every row of the data set (methods A.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MemoryBank(nn.Module):
    """Targets `t <- normalise(momentum * t + (1 - momentum) * embedding)`, float32, random unit vectors at start.

    The start depends on `seed` only, and updates only on the gathered batch, so all ranks hold the same bank without
    ever sending it.
    """

    memory: Tensor

    def __init__(self, rows: int, dim: int, *, momentum: float = 0.5, seed: int = 0):
        super().__init__()
        self.momentum = momentum
        start = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("memory", F.normalize(start, dim=-1))

    def read(self, rows: Tensor) -> Tensor:
        """The targets of any int64 index tensor: [..., D], without gradient."""
        return self.memory[rows]

    @torch.no_grad()
    def update(self, rows: Tensor, embeddings: Tensor) -> None:
        """Move the targets of `rows` [G] towards `embeddings` [G, D] (unit vectors, in global sample order).

        Where a row comes more than once, its last sample counts and the earlier ones do not.
        """
        rows, last = last_of_each(rows)
        moved = torch.lerp(embeddings[last].float(), self.memory[rows], self.momentum)
        self.memory[rows] = F.normalize(moved, dim=-1)


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
