"""The oracle of the weights: pairs weighted by what is true of them instead of by how well their targets agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avssl.tasks.base import Batch, Ranks, TaskOutput
from avssl.tasks.pair_weights import PairWeights
from avssl.tasks.xid import XIDTask
from avssl.tasks.xid_config import XIDConfig


class GivenWeights(PairWeights):
    """Takes the place of measured weights; `rows` are those of the batch at hand."""

    rows: Tensor

    def __init__(self, config: Any, by_row: Tensor):
        super().__init__(config)
        self.register_buffer("by_row", by_row, persistent=False)

    def forward(self, scores: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        _, sums = super().forward(scores, ranks)
        return self.get_buffer("by_row")[self.rows], sums


class OracleXIDTask(XIDTask):
    """An `XIDTask` that knows which rows are `mismatched` [N]: from the phase on that has weights, those pairs get the
    smallest weight and all others 1."""

    mismatched: Tensor

    def enter(self, config: XIDConfig) -> None:
        super().enter(config)
        assert config.weights is not None
        smallest = torch.full(self.mismatched.shape, config.weights.minimum)
        self.pair_weights = GivenWeights(config.weights, smallest.where(self.mismatched, torch.ones(())))

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        if isinstance(weights := getattr(self, "pair_weights", None), GivenWeights):
            weights.rows = batch["row"]
        return super().forward(batch, ranks=ranks, seed=seed)
