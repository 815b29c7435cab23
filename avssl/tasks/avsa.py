"""Audio-visual spatial alignment (AVSA), its first phase (AVC) and its baseline (AVTS), see docs/avsa.md.

All that is trained lies in the model: towers and aligner. So it is synchronised over the ranks like anything else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.aligner import OTHER, Aligner
from avssl.models.two_tower import TwoTower
from avssl.objectives.avsa import alignment
from avssl.objectives.candidates import Columns
from avssl.objectives.scores import unit
from avssl.objectives.xid import xid
from avssl.tasks.avsa_config import AVSAConfig
from avssl.tasks.base import Batch, Ranks, TaskOutput

_USED_BY_AVC = ("video_head.", "audio_head.")


class AVSATask(nn.Module):
    """AVSA as `AVSAConfig` says.

    Reads `row` [B], `video` [B, K, 3, T, H, W] and `audio` [B, K, C, S] of a prepared batch: K views of one moment, or
    (AVTS) K moments of one view. Arguments as in `avssl.tasks.base.Task`.
    """

    def __init__(
        self,
        config: AVSAConfig,
        model: TwoTower,
        *,
        rows: int,
        usable: Tensor | None = None,
        seed: int = 0,
        steps_per_pass: float = 1.0,
        ranks: Ranks | None = None,
    ):
        super().__init__()
        self.config, self.model, self.seed, self.steps_per_pass = config, model, seed, steps_per_pass

    def enter(self, config: AVSAConfig) -> None:
        """Go on with other settings. Coming from AVC the towers stay and the aligner starts anew, as published."""
        self.config.check_change(config)
        if self.config.mode == "avc" and config.mode != "avc":
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                self._aligner.reset()
        self.config = config

    def before_step(self, step_in_phase: int, ranks: Ranks) -> None:
        """Nothing to prepare."""

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Nothing to keep."""

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        parts, views = batch["video"].shape[:2]
        features = {
            "video": self.model.video_features(batch["video"].flatten(0, 1)).unflatten(0, (parts, views)),
            "audio": self.model.audio_features(batch["audio"].flatten(0, 1)).unflatten(0, (parts, views)),
        }
        counts = ranks.counts(parts)
        shared = _Shared(batch["row"], counts, ranks, self.config.gather)
        loss, sums = (self._correspondence if self.config.mode == "avc" else self._alignment)(features, shared)
        total = max(1, sum(counts))
        metrics = dict(zip(sums, ranks.sum(torch.stack(list(sums.values()))) / total, strict=True))
        return {"loss": loss / total * ranks.size, "metrics": metrics, "memory": {}}

    @property
    def _aligner(self) -> Aligner:
        aligner = self.model.aligner
        assert aligner is not None
        return aligner

    def _correspondence(self, features: dict[str, Tensor], shared: _Shared) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over this rank's samples, and sums for the log."""
        own = {name: unit(self._aligner.project(name, features[name].float().amax(1))) for name in OTHER}
        everyone = {name: shared.all(own[name]) for name in OTHER}
        columns = Columns(shared.positions, shared.all_rows, shared.rows)
        found = {
            "v2a": xid(own["video"], everyone["audio"], columns, temperature=self.config.temperature),
            "a2v": xid(own["audio"], everyone["video"], columns, temperature=self.config.temperature),
        }
        loss = torch.stack([contrast.loss.sum() for contrast in found.values()]).mean()
        sums = {"loss": loss.detach()}
        for name, contrast in found.items():
            sums[f"loss_{name}"] = contrast.loss.detach().sum()
            sums[f"top1_{name}"] = (contrast.own > contrast.best_other).float().sum()
        # Nothing, but through all parameters: with several processes each must get a gradient.
        unused = [p for name, p in self._aligner.named_parameters() if not name.startswith(_USED_BY_AVC)]
        return loss + sum(parameter.sum() for parameter in unused) * 0.0, sums

    def _alignment(self, features: dict[str, Tensor], shared: _Shared) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over this rank's samples, and sums for the log."""
        aligner, config = self._aligner, self.config
        found = {}
        for name, other in OTHER.items():
            predicted = aligner.project_prediction(name, aligner.predict(name, features[other]))
            found[name] = alignment(
                unit(predicted),
                shared.all(unit(aligner.project(name, features[name]))),
                shared.positions,
                temperature=config.temperature,
                candidates=config.candidates,
                negatives=config.negatives,
                same=shared.all_rows == shared.rows[:, None],
            )
        losses = {name: judged.loss.mean(1).sum() for name, judged in found.items()}
        loss = torch.stack(list(losses.values())).mean()
        sums = {"loss": loss.detach(), **{f"loss_{name}": value.detach() for name, value in losses.items()}}
        for key in ("beats_easy", "beats_hard"):
            won = [getattr(judged, key).float().mean(1).sum() for judged in found.values()]
            sums[key] = torch.stack(won).mean()
        return loss, sums


class _Shared:
    """The samples that are candidates: those of all ranks, or of this one alone."""

    def __init__(self, rows: Tensor, counts: list[int], ranks: Ranks, gather: bool):
        self.rows, self._counts, self._ranks, self._gather = rows, counts, ranks, gather
        first = sum(counts[: ranks.rank]) if gather else 0
        self.positions = first + torch.arange(len(rows), device=rows.device)
        self.all_rows = self.all(rows)

    def all(self, part: Tensor) -> Tensor:
        """This rank's part [B, ...] with those of the others [N, ...]; gradients flow back to each."""
        return self._ranks.gather(part, self._counts) if self._gather else part
