"""Retrieval: does the query's own partner come first among all candidates?

Each query has one or more right candidates: those of its group (the same clip, or the same video). Its *rank* is the
place, counted from 1, of its best right candidate in the list sorted by similarity. Ties count against the query, so
that a model that gives the same embedding to everything gets the worst rank, not the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avssl.errors import UsageError
from avssl.evaluation.chance import luck

TILE = 1024  # queries at a time: the similarity matrix is never held whole


@dataclass(frozen=True)
class Retrieval:
    """Shares are 0..1. `chance_*` are the exact expectations for random orders of the same candidates, and
    `luck_recall` is what such orders reach or stay below in 95 % of cases: more is unlikely to be luck."""

    queries: int
    candidates: int
    recall: dict[int, float]  # k -> share of queries with rank <= k
    median_rank: float
    chance_recall: dict[int, float]
    luck_recall: dict[int, float]
    chance_median_rank: float


def retrieval(
    queries: np.ndarray,
    candidates: np.ndarray,
    query_groups: np.ndarray | None = None,
    candidate_groups: np.ndarray | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> Retrieval:
    """Rank all candidates [M, D] for every query [N, D] by dot product (cosine, for unit rows) and summarise.

    A candidate is right for a query if their groups (any comparable values, [N] and [M]) are equal. Without groups
    query i belongs to candidate i. Every query needs a right candidate.
    """
    if query_groups is None or candidate_groups is None:
        if len(queries) != len(candidates):
            raise UsageError(
                f"retrieval without groups pairs rows: {len(queries)} queries, {len(candidates)} candidates"
            )
        query_groups = candidate_groups = np.arange(len(queries))
    ranks = first_ranks(queries, candidates, query_groups, candidate_groups)
    right = np.array([(candidate_groups == group).sum() for group in query_groups])
    within = chance_within(right, len(candidates))
    chance = within.mean(axis=0)
    last = len(candidates) - 1  # more places than candidates hold them all
    return Retrieval(
        queries=len(queries),
        candidates=len(candidates),
        recall={k: float((ranks <= k).mean()) for k in ks},
        median_rank=float(np.median(ranks)),
        chance_recall={k: float(chance[min(k - 1, last)]) for k in ks},
        luck_recall={k: luck(within[:, min(k - 1, last)]) for k in ks},
        chance_median_rank=float(np.argmax(chance >= 0.5 - 1e-9) + 1),
    )


def first_ranks(
    queries: np.ndarray, candidates: np.ndarray, query_groups: np.ndarray, candidate_groups: np.ndarray
) -> np.ndarray:
    """The rank of each query's best right candidate: one more than the wrong ones at least as similar. [N] int64."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), TILE):
        tile = slice(start, start + TILE)
        similar = queries[tile].astype(np.float64) @ candidates.T.astype(np.float64)
        right = query_groups[tile, None] == candidate_groups[None, :]
        if not right.any(axis=1).all():
            raise UsageError("retrieval: a query has no right candidate; keep only queries whose group is among them")
        best = np.where(right, similar, -np.inf).max(axis=1, keepdims=True)
        ranks[tile] = 1 + ((similar >= best) & ~right).sum(axis=1)
    return ranks


def chance_within(right: np.ndarray, candidates: int) -> np.ndarray:
    """Probability that the rank of each query is at most 1, 2, …, `candidates` if the order is random; [N, candidates].

    With g right ones among M the first r places hold none with probability prod_{i<r} (M - g - i) / (M - i).
    """
    place = np.arange(candidates)
    none_yet = np.maximum(candidates - np.asarray(right)[:, None] - place, 0) / (candidates - place)
    return 1.0 - np.cumprod(none_yet, axis=1)
