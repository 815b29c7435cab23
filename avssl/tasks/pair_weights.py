"""The weights of pairs within a task: the moments of the scores they are measured by, and when these are taken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.objectives.weights import follow, mean_std, pair_weights, score_sums
from avssl.tasks.base import Ranks
from avssl.tasks.xid_config import WeightsConfig


class PairWeights(nn.Module):
    """Weights [B] of pairs from the scores [B] of their slow targets (methods A.4); `moments` is all its state.

    The moments are those of the banks (`measured` hands them over) or follow the batches (`follow`, after each step;
    a batch that comes before any moments is judged by its own).
    """

    moments: Tensor  # 1, mean and mean square of the scores; zeros: not known yet

    def __init__(self, config: WeightsConfig):
        super().__init__()
        self.config = config
        self.register_buffer("moments", torch.zeros(3, dtype=torch.float64))

    def measured(self, sums: Tensor) -> None:
        """Take the moments from `score_sums` of all pairs."""
        self.moments.copy_(sums / sums[0])

    def forward(self, scores: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """The weights of this rank's pairs, and `score_sums` of the global batch."""
        sums = ranks.sum(score_sums(scores))
        mean, std = mean_std(torch.where(self.moments[0] > 0, self.moments, sums))
        config = self.config
        weights = pair_weights(
            scores,
            mean,
            std,
            minimum=config.minimum,
            shift=config.shift,
            sharpness=config.sharpness,
            truncation=config.truncation,
        )
        return weights, sums

    def follow(self, sums: Tensor) -> None:
        """Move the moments towards those of a global batch, where they are not those of the banks."""
        if self.config.statistics == "batch":
            self.moments.copy_(follow(self.moments, sums, self.config.momentum))
