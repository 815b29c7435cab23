"""Training a tagger: clips whose classes are known, but not when they sound (PANNs, arXiv 1912.10211)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.models.cnn14 import Cnn14
from avssl.tasks.base import Batch, Ranks, TaskOutput
from avssl.tasks.tagging_config import TaggingConfig


class TaggingTask(nn.Module):
    """Reads `audio` [B, 1, 1, S] and `target` [B, classes] of a batch. Arguments as in `avssl.tasks.base.Task`.

    Metrics beside the loss: `first`, the share of clips whose most likely class is one of theirs (of mixed clips, one
    of either).
    """

    def __init__(
        self,
        config: TaggingConfig,
        model: Cnn14,
        *,
        rows: int = 0,
        usable: Tensor | None = None,
        seed: int = 0,
        steps_per_pass: float = 1.0,
        ranks: Ranks | None = None,
    ):
        super().__init__()
        self.config, self.model, self.steps_per_pass = config, model, steps_per_pass

    def enter(self, config: TaggingConfig) -> None:
        self.config = config

    def before_step(self, step_in_phase: int, ranks: Ranks) -> None:
        """Nothing to prepare."""

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Nothing to keep."""

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        waveform, target = batch["audio"][:, 0, 0], batch["target"]
        if self.config.mixup and len(target) > 1:
            waveform, target = mixup(waveform, target, self.config.mixup)
        logits = self.model(waveform).logits
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1).sum()
        first = target.gather(1, logits.argmax(1, keepdim=True)).gt(0).float().sum()
        total = max(1, sum(ranks.counts(len(target))))
        sums = ranks.sum(torch.stack([loss.detach(), first])) / total
        return {"loss": loss / total * ranks.size, "metrics": {"loss": sums[0], "first": sums[1]}, "memory": {}}


def mixup(waveform: Tensor, target: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each sound [B, S] with its neighbour's, and their targets [B, classes], in a proportion ~ Beta(alpha, alpha).

    The sounds themselves are mixed, as in nature (PANNs mixed their log spectrograms). Draws from torch's generator.
    """
    share = torch.distributions.Beta(alpha, alpha).sample((len(target), 1)).to(waveform)
    return tuple(share * x + (1 - share) * x.roll(-1, 0) for x in (waveform, target))  # type: ignore[return-value]
