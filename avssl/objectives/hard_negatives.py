"""Hard-negative contrast: only the most similar negatives stay (Wang & Liu 2021, arXiv 2012.09740)."""

from __future__ import annotations

import torch
from torch import Tensor

from avssl.objectives.nce import negative_mask


def keep_hardest(scores: Tensor, positive: Tensor, share: float) -> Tensor:
    """Take out (-inf) all negatives of a query but the `share` (rounded up) with the highest scores.

    Args:
        scores: [B, J] similarities; -inf is taken out already and counts as no negative.
        positive: [B] int64, the column of each query's own target, which stays.
        share: in (0, 1]; 1 changes nothing. Negatives as similar as the last one that stays also stay.
    """
    negatives = negative_mask(scores, positive)
    ordered = scores.detach().masked_fill(~negatives, -torch.inf).sort(1, descending=True).values
    kept = (negatives.sum(1, keepdim=True) * share).ceil().long()
    threshold = ordered.gather(1, (kept - 1).clamp(min=0))
    return scores.masked_fill(negatives & (scores < threshold), -torch.inf)
