"""Instance discrimination as binary noise-contrastive estimation, the loss of the AVID models."""

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
        partition: Z, a positive scalar tensor (see `partition_sums`). K is each query's number of negatives.
    Returns:
        [B] float32. Random unit vectors (D 128, tau 0.07, K 1024) with their own Z (2.2) give 8.72 on average.
    """
    scores = scores.float()
    negatives = negative_mask(scores, positive)
    log_noise = _log_noise(negatives, partition)
    own = scores.gather(1, positive[:, None])
    return F.softplus(log_noise - own).squeeze(1) + _push(scores, negatives, log_noise)


def nce_several(scores: Tensor, positives: Tensor, partition: Tensor) -> Tensor:
    """The same with several positives a query: their *mean* takes the place of the one, negatives are still summed.

    Args:
        scores: [B, J] similarities over the temperature; -inf takes a candidate out, positive or negative.
        positives: [B, J] bool, True for positives; all others are negatives.
    Returns:
        [B] float32; without any positive only the negatives count.
    """
    scores = scores.float()
    visible = scores != -torch.inf
    positives, negatives = positives & visible, ~positives & visible
    log_noise = _log_noise(negatives, partition)
    pulls = F.softplus(log_noise - scores.masked_fill(~positives, torch.inf)).sum(1)
    return pulls / positives.sum(1).clamp(min=1) + _push(scores, negatives, log_noise)


def partition_sums(scores: Tensor, positive: Tensor) -> Tensor:
    """[2]: the sum of e^x over all negatives and their number; add up over ranks, divide, and it is Z of B.2."""
    scores = scores.detach().float()
    negatives = negative_mask(scores, positive)
    return torch.stack([scores.exp().masked_fill(~negatives, 0).sum(), negatives.sum().float()])


def negative_mask(scores: Tensor, positive: Tensor) -> Tensor:
    """[B, J] bool: candidates that are neither the positive nor taken out."""
    mask = scores != -torch.inf  # one that is not a number stays a candidate, so that the loss shows it
    return mask.scatter(1, positive[:, None], False)


def _log_noise(negatives: Tensor, partition: Tensor) -> Tensor:
    return (negatives.sum(1, keepdim=True).clamp(min=1) * partition).log()


def _push(scores: Tensor, negatives: Tensor, log_noise: Tensor) -> Tensor:
    return F.softplus(scores - log_noise).masked_fill(~negatives, 0).sum(1)
