"""What the geometry of embeddings says of a training (Wang & Liu 2021, arXiv 2012.09740); nothing here has gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def uniformity(first: Tensor, second: Tensor | None = None) -> Tensor:
    """`log mean exp(-2 |x - y|^2)` over all pairs x != y of unit vectors [G, D]: 0 collapsed, towards -4 uniform.

    With a second modality [G, D] over all pairs of one from each that are not partners (equal position).
    """
    first = first.float()
    second = first if second is None else second.float()
    distances = 2 - 2 * (first @ second.T)  # squared; of unit vectors
    exponents = (-2 * distances).fill_diagonal_(-torch.inf)
    return exponents.flatten().logsumexp(0) - math.log(max(1, len(first) * (len(first) - 1)))


@torch.no_grad()
def tolerance(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean inner product of the pairs x != y of [G, D] whose labels [G] are equal; NaN where there is none."""
    same = (labels[:, None] == labels).fill_diagonal_(False)
    return (embeddings.float() @ embeddings.float().T)[same].mean()


@torch.no_grad()
def effective_negatives(scores: Tensor, positive: Tensor) -> Tensor:
    """[B]: `exp(H(r))`, over how many negatives the push of each query spreads; r is their softmax.

    Args:
        scores: [B, J] similarities over the temperature; -inf takes a candidate out. positive: [B] int64.
    Returns:
        between 1 (only the hardest is pushed) and the number of negatives (all alike); 0 where there is none.
    """
    others = scores.float().scatter(1, positive[:, None], -torch.inf)
    entropy = torch.special.entr(others.softmax(1)).sum(1).exp()
    return torch.where(others.amax(1) == -torch.inf, 0, entropy)
