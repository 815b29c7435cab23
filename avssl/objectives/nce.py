"""Cross-modal instance discrimination as binary noise-contrastive estimation, the loss of the AVID models."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def nce_xid(scores: Tensor, positive: Tensor, partition: Tensor) -> Tensor:
    """NCE with uniform noise for each query (one direction of methods B.2), in log space.

        softplus(log(K Z) - x_positive)  +  sum over negatives of softplus(x_k - log(K Z))

    Args:
        scores: [B, J] similarities over the temperature; -inf takes a candidate out.
        positive: [B] int64, the column of each query's own target.
        partition: Z, a positive scalar tensor (see `mean_partition`). K is each query's number of negatives.
    Returns:
        [B] float32. Random unit vectors (D 128, tau 0.07, K 1024) with their own Z (2.2) give 8.72 on average.
    """
    scores = scores.float()
    negatives = negative_mask(scores, positive)
    log_noise = (negatives.sum(1, keepdim=True).clamp(min=1) * partition).log()
    own = scores.gather(1, positive[:, None])
    others = F.softplus(scores - log_noise).masked_fill(~negatives, 0)
    return F.softplus(log_noise - own).squeeze(1) + others.sum(1)


def partition_sums(scores: Tensor, positive: Tensor) -> Tensor:
    """[2]: the sum of e^x over all negatives and their number; add up over ranks, divide, and it is Z of B.2."""
    scores = scores.detach().float()
    negatives = negative_mask(scores, positive)
    return torch.stack([scores.exp().masked_fill(~negatives, 0).sum(), negatives.sum().float()])


def negative_mask(scores: Tensor, positive: Tensor) -> Tensor:
    """[B, J] bool: candidates that are neither the positive nor taken out."""
    mask = scores > -torch.inf
    return mask.scatter(1, positive[:, None], False)
