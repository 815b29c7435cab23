"""Candidates that come from the batch itself: which of them are no negatives."""

from __future__ import annotations

import torch
from torch import Tensor


def hide_repeats(scores: Tensor, query_rows: Tensor, candidate_rows: Tensor, positive: Tensor) -> Tensor:
    """Take out (-inf) candidates that show the query's own row a second time: they are not negatives.

    Args:
        scores: [B, G]; query_rows: [B]; candidate_rows: [G].
        positive: [B] int64, the column of each query's own partner, which stays.
    """
    repeats = query_rows[:, None] == candidate_rows[None, :]
    return scores.masked_fill(repeats.scatter(1, positive[:, None], False), -torch.inf)
