"""Similarity of queries and candidates, the input of every loss here."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(embeddings: Tensor) -> Tensor:
    """L2-normalise the last dimension in float32, whatever the precision of the towers."""
    return F.normalize(embeddings.float(), dim=-1)


def scores(queries: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    """Inner products over the temperature: `s_i . t_j / tau` (methods A.1), float32.

    Args:
        queries: [B, D] unit vectors.
        candidates: [J, D] shared by all queries, or [B, J, D] of each query.
        temperature: tau.
    Returns:
        [B, J].
    """
    if candidates.dim() == 2:
        return queries @ candidates.T / temperature
    return torch.einsum("bd,bjd->bj", queries, candidates) / temperature
