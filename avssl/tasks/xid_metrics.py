"""What a step of cross-modal instance discrimination logs: sums of each rank's queries, made means in one exchange."""

from __future__ import annotations

import torch
from torch import Tensor

from avssl.objectives.monitor import effective_negatives, uniformity
from avssl.objectives.xid import Contrast
from avssl.tasks.base import Ranks
from avssl.tasks.targets import DIRECTIONS, Candidates, Queries, Sides
from avssl.tasks.terms import visible_scores
from avssl.tasks.xid_config import XIDConfig

WEIGHT_BINS = 10
_SCORES = 2**24  # of the monitor exist at once


def direction_sums(contrasts: dict[str, Contrast], queries: Queries, found: Candidates) -> Sides:
    """Of each direction: queries whose own partner scores highest, and the cosine of query and own target; over both,
    the mass that soft targets leave on the own column."""
    sums = {}
    for name, judged in contrasts.items():
        source, other = DIRECTIONS[name]
        sums[f"top1_{name}"] = (judged.own > judged.best_other).float().sum()
        sums[f"cosine_{name}"] = (queries.embeddings[source].detach() * found.own[other]).sum()
    own = [judged.soft_own.sum() for judged in contrasts.values() if judged.soft_own is not None]
    return {**sums, "soft_own": torch.stack(own).mean()} if own else sums


def weight_sums(weights: Tensor) -> Sides:
    """The mean of the weights [B] and their histogram: `weight_30` is the share of pairs with weight in [0.3, 0.4)."""
    bins = (weights.nan_to_num() * WEIGHT_BINS).long().clamp(max=WEIGHT_BINS - 1)
    bins = bins.bincount(minlength=WEIGHT_BINS).float()
    shares = {f"weight_{100 * number // WEIGHT_BINS:02d}": bins[number] for number in range(WEIGHT_BINS)}
    return {"weight_mean": weights.sum(), **shares}


def means(sums: Sides, total: int, ranks: Ranks) -> Sides:
    """Over the global batch of `total` queries."""
    return dict(zip(sums, ranks.sum(torch.stack(list(sums.values()))) / total, strict=True))


@torch.no_grad()
def monitored(config: XIDConfig, queries: Queries, found: Candidates, total: int, ranks: Ranks) -> Sides:
    """Uniformity of the global batch's embeddings, and over how many negatives the push of a query spreads."""
    video, audio = (ranks.gather(queries.embeddings[name].detach(), queries.counts) for name in ("video", "audio"))
    targets = found.targets["audio"].detach()
    effective = video.new_zeros(())
    for part in torch.arange(len(queries.rows), device=video.device).split(max(1, _SCORES // targets.shape[-2])):
        columns = found.columns.of(slice(int(part[0]), int(part[-1]) + 1))
        own = targets if targets.dim() == 2 else targets[part]
        scores = visible_scores(queries.embeddings["video"].detach()[part], own, columns, config.temperature)
        effective += effective_negatives(scores, columns.positive).sum()
    return {
        "uniformity_video": uniformity(video),
        "uniformity_audio": uniformity(audio),
        "uniformity_cross": uniformity(video, audio),
        "effective_negatives": ranks.sum(effective) / total,
    }
