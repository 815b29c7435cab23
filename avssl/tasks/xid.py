"""Cross-modal instance discrimination: each modality finds its own partner among candidates of the other one.

The loss is the mean of both directions (methods A.2 and B.1). Weights and soft targets of the robust form enter
beside `positive` in `_direction`: everything before it (candidates, scores) and after it (sums over ranks) stays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from avssl.errors import ConfigError
from avssl.models.two_tower import TwoTower
from avssl.objectives.bank import MemoryBank, draw_negatives
from avssl.objectives.in_batch import hide_repeats
from avssl.objectives.nce import nce_xid, partition_sums
from avssl.objectives.scores import scores, unit
from avssl.objectives.xid import softmax_xid
from avssl.tasks.base import Batch, Ranks, TaskOutput
from avssl.tasks.xid_config import XIDConfig


class _Scores(NamedTuple):
    """Scores [B, J] of both directions; `positive` [B] is the column of the sample's own partner in both."""

    v2a: Tensor
    a2v: Tensor
    positive: Tensor


class XIDTask(nn.Module):
    """xID with softmax or NCE, targets from memory banks or from the batch.

    Reads `row` [B], `video` [B, K, 3, T, H, W] and `audio` [B, K, C, S] of a prepared batch; each of the K clips of a
    sample is a query of its own.

    Args:
        rows: number of rows of the manifest, the size of the banks.
        usable: the rows that samples come from, ascending; negatives are drawn from them. Default: all.
        seed: start of the banks.
    """

    partition: Tensor
    usable: Tensor

    def __init__(self, config: XIDConfig, model: TwoTower, *, rows: int, usable: Tensor | None = None, seed: int = 0):
        super().__init__()
        self.config, self.model = config, model
        if config.targets == "bank":
            usable = torch.arange(rows) if usable is None else usable
            if len(usable) < 2:
                raise ConfigError(f"task.targets is 'bank', which needs at least 2 rows, not {len(usable)}")
            self.register_buffer("usable", usable, persistent=False)
            dim = model.config.head.dim
            self.video_bank = MemoryBank(rows, dim, momentum=config.bank_momentum, seed=2 * seed)
            self.audio_bank = MemoryBank(rows, dim, momentum=config.bank_momentum, seed=2 * seed + 1)
        if config.loss == "nce":
            self.register_buffer("partition", torch.zeros(()))  # 0: not measured yet

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        clips = batch["video"].shape[1]
        rows = batch["row"].repeat_interleave(clips)
        embeddings = self.model(video=batch["video"].flatten(0, 1), audio=batch["audio"].flatten(0, 1))
        with torch.autocast(rows.device.type, enabled=False):
            video, audio = unit(embeddings["video"]), unit(embeddings["audio"])
            counts = ranks.counts(len(rows))
            if self.config.targets == "bank":
                found = self._bank_scores(rows, video, audio, ranks, counts, seed)
            else:
                found = self._batch_scores(rows, video, audio, ranks, counts)
            if self.config.loss == "nce" and self.partition == 0:
                self._measure_partition(found, ranks)
            losses = {"v2a": self._direction(found.v2a, found.positive)}
            losses["a2v"] = self._direction(found.a2v, found.positive)

            total = max(1, sum(counts))
            loss = (losses["v2a"].sum() + losses["a2v"].sum()) / (2 * total) * ranks.size
            metrics = self._metrics(found, losses, ranks, total)
        return {
            "loss": loss,
            "metrics": metrics,
            "memory": {"row": rows, "video": video.detach(), "audio": audio.detach()},
        }

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Move the banks towards the embeddings of the step, in global sample order."""
        if self.config.targets != "bank":
            return
        gathered: dict[str, list[Tensor]] = {"row": [], "video": [], "audio": []}
        for memory in memories:
            counts = ranks.counts(len(memory["row"]))
            for key, parts in gathered.items():
                parts.append(ranks.gather(memory[key], counts))
        rows, video, audio = (torch.cat(parts) for parts in gathered.values())
        self.video_bank.update(rows, video)
        self.audio_bank.update(rows, audio)

    def _direction(self, scores: Tensor, positive: Tensor) -> Tensor:
        """The loss [B] of one direction."""
        if self.config.loss == "nce":
            return nce_xid(scores, positive, self.partition)
        return softmax_xid(scores, positive)

    def _bank_scores(
        self, rows: Tensor, video: Tensor, audio: Tensor, ranks: Ranks, counts: list[int], seed: int
    ) -> _Scores:
        """Column 0 is the own target, the others are the same sampled rows for both directions."""
        generator = torch.Generator(rows.device).manual_seed(seed)
        # Drawn for the global batch and then cut, so that a sample's negatives do not depend on the number of ranks.
        own = torch.searchsorted(self.usable, ranks.gather(rows, counts))
        drawn = draw_negatives(own, len(self.usable), self.config.negatives, generator)
        first = sum(counts[: ranks.rank])
        columns = torch.cat([rows[:, None], self.usable[drawn[first : first + len(rows)]]], 1)
        return _Scores(
            scores(video, self.audio_bank.read(columns), self.config.temperature),
            scores(audio, self.video_bank.read(columns), self.config.temperature),
            torch.zeros_like(rows),
        )

    def _batch_scores(self, rows: Tensor, video: Tensor, audio: Tensor, ranks: Ranks, counts: list[int]) -> _Scores:
        """Candidates are the gathered batch of the other modality."""
        all_rows = ranks.gather(rows, counts)
        positive = sum(counts[: ranks.rank]) + torch.arange(len(rows), device=rows.device)
        v2a = scores(video, ranks.gather(audio, counts), self.config.temperature)
        a2v = scores(audio, ranks.gather(video, counts), self.config.temperature)
        v2a, a2v = (hide_repeats(x, rows, all_rows, positive) for x in (v2a, a2v))
        return _Scores(v2a, a2v, positive)

    def _measure_partition(self, found: _Scores, ranks: Ranks) -> None:
        """Set Z once, from the first batch's negatives of video to audio (methods B.2)."""
        total, number = ranks.sum(partition_sums(found.v2a, found.positive))
        measured = total / number
        if torch.isfinite(measured):
            self.partition.copy_(measured)

    def _metrics(self, found: _Scores, losses: dict[str, Tensor], ranks: Ranks, total: int) -> dict[str, Tensor]:
        """Means over the global batch: loss of both and of each direction, share of queries whose own partner scores
        highest, mean cosine of partners."""
        sums = {}
        for name, x in (("v2a", found.v2a), ("a2v", found.a2v)):
            own = x.detach().gather(1, found.positive[:, None])
            sums[f"loss_{name}"] = losses[name].detach().sum()
            sums[f"top1_{name}"] = ((x >= own).sum(1) == 1).float().sum()
            sums[f"cosine_{name}"] = own.sum() * self.config.temperature
        means = ranks.sum(torch.stack(list(sums.values()))) / total
        metrics = dict(zip(sums, means, strict=True))
        return {"loss": (metrics["loss_v2a"] + metrics["loss_a2v"]) / 2, **metrics}
