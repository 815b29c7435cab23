"""How well scores rank the clips that hold a class before those that do not: average precision, and its mean (mAP)."""

from __future__ import annotations

import torch
from torch import Tensor


def average_precision(scores: Tensor, targets: Tensor) -> Tensor:
    """[N, classes] scores and 0/1 targets -> [classes] float64: the mean, over a class's clips, of the precision among
    all that are scored as high or higher.

    Equal scores count together, so that their order does not matter (as in scikit-learn). NaN for a class without a
    clip; the mAP of AudioSet is `average_precision(...).nanmean()`.
    """
    values = []
    for score, target in zip(scores.double().T, targets.double().T, strict=True):
        order = score.argsort(descending=True)
        score, hit = score[order], target[order].cumsum(0)
        last = torch.ones_like(score, dtype=torch.bool)  # the last of each run of equal scores
        last[:-1] = score[:-1] != score[1:]
        precision = hit[last] / (torch.nonzero(last).flatten() + 1)
        gained = hit[last].diff(prepend=hit.new_zeros(1))
        values.append((precision * gained).sum() / hit[-1] if len(hit) and hit[-1] else hit.new_tensor(torch.nan))
    return torch.stack(values) if values else scores.new_zeros(0, dtype=torch.float64)
