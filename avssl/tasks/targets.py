"""Where targets come from: for the queries of a step, the candidates of both modalities.

All providers give the same columns for both modalities, so one set of `Columns` serves every direction.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from avssl.objectives.agreement import draw_negatives_outside
from avssl.objectives.bank import draw_negatives
from avssl.objectives.candidates import Columns
from avssl.tasks.banks import Bank
from avssl.tasks.base import Ranks
from avssl.tasks.slow import TargetQueue

MODALITIES = ("video", "audio")
DIRECTIONS = {  # the modality of the queries and that of their targets
    "v2a": ("video", "audio"),
    "a2v": ("audio", "video"),
    "v2v": ("video", "video"),
    "a2a": ("audio", "audio"),
}

Sides = dict[str, Tensor]
"""A tensor of each modality, by its name."""


class Queries(NamedTuple):
    """The queries of this rank and where they lie in the global batch.

    rows: [B] int64. embeddings: [B, D] unit vectors of each modality, with gradient. all_rows: [G], of all ranks.
    counts: queries of each rank. first: this rank's first position in the global batch.
    """

    rows: Tensor
    embeddings: Sides
    all_rows: Tensor
    counts: list[int]
    first: int

    @property
    def own_positions(self) -> Tensor:
        """[B]: where this rank's queries lie in the global batch."""
        return self.first + torch.arange(len(self.rows), device=self.rows.device)


class Candidates(NamedTuple):
    """What the queries choose from.

    targets: of each modality, [J, D] for all queries or [B, J, D] for each.
    own: of each modality, [B, D], the target of the sample itself; without gradient.
    """

    targets: Sides
    own: Sides
    columns: Columns


def gathered(rows: Tensor, embeddings: Sides, ranks: Ranks) -> Queries:
    """The queries of this rank; all ranks call alike."""
    counts = ranks.counts(len(rows))
    return Queries(rows, embeddings, ranks.gather(rows, counts), counts, sum(counts[: ranks.rank]))


def from_batch(queries: Queries, ranks: Ranks) -> Candidates:
    """The gathered batch, with gradient to both sides."""
    targets = {name: ranks.gather(x, queries.counts) for name, x in queries.embeddings.items()}
    own = {name: x.detach() for name, x in queries.embeddings.items()}
    return Candidates(targets, own, Columns(queries.own_positions, queries.all_rows, queries.rows))


def from_queue(queries: Queries, slow: Sides, queue: TargetQueue, ranks: Ranks) -> Candidates:
    """The gathered batch as the momentum encoder sees it (`slow` [B, D] of this rank), and the queue behind it."""
    targets = {name: torch.cat([ranks.gather(slow[name], queries.counts), queue.side(name)]) for name in slow}
    rows = torch.cat([queries.all_rows, queue.rows])
    return Candidates(targets, slow, Columns(queries.own_positions, rows, queries.rows, absent=rows < 0))


def from_bank_rows(queries: Queries, banks: dict[str, Bank], absent: Tensor | None) -> Candidates:
    """All rows of the banks but those that are `absent` [N]."""
    targets = {name: bank.memory for name, bank in banks.items()}
    own = {name: bank.read(queries.rows) for name, bank in banks.items()}
    return Candidates(targets, own, Columns(queries.rows, absent=absent))


def from_bank_draws(queries: Queries, banks: dict[str, Bank], columns: Tensor) -> Candidates:
    """The rows `columns` [B, 1 + K] of each query, its own first; the same for both modalities."""
    targets = {name: bank.read(columns) for name, bank in banks.items()}
    own = {name: target[:, 0] for name, target in targets.items()}
    return Candidates(targets, own, Columns(torch.zeros_like(queries.rows)))


def draw_rows(queries: Queries, usable: Tensor, count: int, seed: int, positives: Tensor | None = None) -> Tensor:
    """[B, 1 + count]: each query's own row and `count` others of the `usable` [U], ascending, with replacement.

    positives: [N, P] rows that are not drawn for a row, ascending.
    """
    # Drawn for the global batch and then cut, so that a sample's negatives do not depend on the number of ranks.
    rows = queries.all_rows
    generator = torch.Generator(rows.device).manual_seed(seed)
    own = torch.searchsorted(usable, rows)
    if positives is None:
        drawn = draw_negatives(own, len(usable), count, generator)
    else:
        taken = torch.searchsorted(usable, positives[rows].long())
        taken = torch.cat([own[:, None], taken], 1).sort(1).values
        drawn = draw_negatives_outside(taken, len(usable), count, generator)
    here = slice(queries.first, queries.first + len(queries.rows))
    return torch.cat([queries.rows[:, None], usable[drawn[here]]], 1)
