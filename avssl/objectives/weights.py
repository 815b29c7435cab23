"""Weights of pairs by how well their two sides agree: faulty positives count less (methods A.4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SMALLEST_STD = 1e-6


def pair_weights(
    scores: Tensor,
    mean: Tensor | float,
    std: Tensor | float,
    *,
    minimum: float,
    shift: float,
    sharpness: float,
    truncation: Literal["affine", "clamp"] = "affine",
) -> Tensor:
    """`w = w_min + (1 - w_min) Phi((s - (mu + delta sigma)) / (sqrt(kappa) sigma))`, Phi the normal CDF; no gradient.

    Args:
        scores: inner products of the two memories of each pair, any shape.
        mean, std: mu and sigma of the scores of all pairs; sigma is taken as at least 1e-6.
        minimum: w_min in [0, 1]; 1 gives every pair exactly weight 1.
        shift: delta; above 0 is stricter. sharpness: kappa > 0; towards 0 is a hard step at mu + delta sigma.
        truncation: `affine` squeezes Phi into [w_min, 1] as above, `clamp` is max(w_min, Phi).
    """
    scores = scores.detach().float()
    std = torch.as_tensor(std, dtype=torch.float32, device=scores.device).clamp(min=SMALLEST_STD)
    phi = torch.special.ndtr((scores - (mean + shift * std)) / (sharpness**0.5 * std))
    if truncation == "clamp":
        return phi.clamp(min=minimum)
    return minimum + (1 - minimum) * phi


@torch.no_grad()
def pair_scores(first: Tensor, second: Tensor, *, chunk: int = 16384) -> Tensor:
    """Inner products of partners: [..., D] twice -> [...] float32, in chunks (half precision is widened by chunks)."""
    parts = zip(first.flatten(0, -2).split(chunk), second.flatten(0, -2).split(chunk), strict=True)
    products = [(x.float() * y.float()).sum(-1) for x, y in parts]
    return torch.cat(products).unflatten(0, first.shape[:-1])


def score_sums(scores: Tensor) -> Tensor:
    """[3] float64: number, sum, and sum of squares of the scores. Add them up over ranks or chunks."""
    scores = scores.detach().double()
    return torch.stack([torch.full_like(scores.sum(), scores.numel()), scores.sum(), scores.square().sum()])


def mean_std(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation (float32 scalars) from `score_sums`."""
    mean = sums[1] / sums[0]
    variance = (sums[2] / sums[0] - mean.square()).clamp(min=0)
    return mean.float(), variance.sqrt().float()


def follow(average: Tensor, sums: Tensor, momentum: float) -> Tensor:
    """Exponential moving average of the moments of batches, in the form of `score_sums` of one pair.

    Args:
        average: [3], what this returned last time; zeros at the start, where the batch's own moments are taken.
        sums: `score_sums` of the global batch; an empty one changes nothing.
    """
    batch = sums / sums[0].clamp(min=1)
    moved = torch.where(average[0] > 0, torch.lerp(batch, average, momentum), batch)
    return torch.where(sums[0] > 0, moved, average)
