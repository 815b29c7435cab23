"""Cross-modal instance discrimination: each modality finds its own partner among candidates of the other one.

The pieces are one idea a file: `targets` brings the candidates (from the batch, the memory banks or a momentum
encoder's queue), `terms` compares queries with them, `pair_weights` judges pairs, `mining` finds further positives.
This file puts them together as the config says. docs/objectives.md has the formulas and what they cost.
"""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import torch
from torch import Tensor, nn

from avssl.errors import ConfigError
from avssl.models.two_tower import TwoTower
from avssl.objectives.isogclr import Temperatures
from avssl.objectives.nce import partition_sums
from avssl.objectives.scores import unit
from avssl.objectives.siglip import siglip
from avssl.objectives.soft_targets import Side, soft_targets
from avssl.objectives.weights import pair_scores
from avssl.objectives.xid import Contrast, Soft
from avssl.tasks import targets as providers
from avssl.tasks import xid_metrics
from avssl.tasks.banks import Bank, make_bank, pair_sums
from avssl.tasks.base import Batch, Ranks, TaskOutput
from avssl.tasks.mining import Mining
from avssl.tasks.pair_weights import PairWeights
from avssl.tasks.slow import MomentumEncoder, TargetQueue
from avssl.tasks.targets import DIRECTIONS, MODALITIES, Candidates, Queries, Sides
from avssl.tasks.terms import against_positives, contrast, judged, visible_scores
from avssl.tasks.xid_config import XIDConfig

SIGLIP_BIAS = -10.0  # where the paper (arXiv 2303.15343) starts it


class XIDTask(nn.Module):
    """xID and what is built on it, as `XIDConfig` says.

    Reads `row` [B], `video` [B, K, 3, T, H, W] and `audio` [B, K, C, S] of a prepared batch; each of the K clips of a
    sample is a query of its own. Arguments as in `avssl.tasks.base.Task`; `ranks` is needed where banks are sharded.
    """

    usable: Tensor
    absent: Tensor | None
    video_bank: Bank
    audio_bank: Bank
    momentum_encoder: MomentumEncoder
    queue: TargetQueue
    pair_weights: PairWeights
    mining: Mining
    temperatures: nn.ModuleDict
    partition: Tensor
    siglip_log_scale: nn.Parameter
    siglip_bias: nn.Parameter

    def __init__(
        self,
        config: XIDConfig,
        model: TwoTower,
        *,
        rows: int,
        usable: Tensor | None = None,
        seed: int = 0,
        steps_per_pass: float = 1.0,
        ranks: Ranks | None = None,
    ):
        super().__init__()
        self.config, self.model = config, model
        self.seed, self.steps_per_pass, self._ranks = seed, steps_per_pass, ranks
        self.rows, self._phases = rows, [config]
        self.register_buffer("usable", torch.arange(rows) if usable is None else usable, persistent=False)
        absent = None
        if len(self.usable) < rows:
            absent = torch.ones(rows, dtype=torch.bool)
            absent[self.usable] = False
        self.register_buffer("absent", absent, persistent=False)
        if config.loss == "siglip":
            # Not scalars: FSDP cannot shard those.
            self.siglip_log_scale = nn.Parameter(torch.tensor([-math.log(config.temperature)]))
            self.siglip_bias = nn.Parameter(torch.tensor([SIGLIP_BIAS]))
        self._equip()

    def enter(self, config: XIDConfig) -> None:
        """Go on with other settings. Banks, Z, queue, moments and temperatures stay; what is new starts fresh."""
        for earlier in self._phases:
            earlier.check_change(config)
        self._phases.append(config)
        self.config = config
        self._equip()

    def before_step(self, step_in_phase: int, ranks: Ranks) -> None:
        """Measure the banks' pairs and mine positives where this is due; start the momentum encoder."""
        config = self.config
        if config.targets == "queue" and step_in_phase == 0:
            self.momentum_encoder.start(self.model)
        if config.weights is not None and config.weights.statistics == "bank":
            period = max(1, round(config.weights.every_passes * self.steps_per_pass))
            if step_in_phase % period == 0:
                self.pair_weights.measured(pair_sums(self.video_bank, self.audio_bank, self.usable, ranks))
        if config.agreement is not None:
            banks = (self.video_bank.memory, self.audio_bank.memory)
            self.mining.before_step(step_in_phase, *banks, usable=self.usable, absent=self.absent, ranks=ranks)

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        config = self.config
        rows = batch["row"].repeat_interleave(batch["video"].shape[1])
        inputs = {name: batch[name].flatten(0, 1) for name in MODALITIES}
        embeddings = self.model(**inputs)
        slow = self.momentum_encoder(**inputs) if config.targets == "queue" else {}
        with torch.autocast(rows.device.type, enabled=False):
            queries = providers.gathered(rows, {name: unit(embeddings[name]) for name in MODALITIES}, ranks)
            total = max(1, sum(queries.counts))
            found = self._candidates(queries, slow, ranks, seed)
            if config.loss == "nce" and self.partition == 0:
                self._measure_partition(queries, found, ranks)
            memory = {"row": rows, **{name: x.detach() for name, x in (slow or queries.embeddings).items()}}
            contrasts = self._contrasts(queries, found, memory)
            losses = {name: contrast.loss for name, contrast in contrasts.items()}
            if config.agreement is not None:
                losses["agreement"] = self._agreement(queries, found)

            sums = xid_metrics.direction_sums(contrasts, queries, found)
            if config.weights is not None:
                weights, memory["pair_sums"] = self.pair_weights(pair_scores(*found.own.values()), ranks)
                sums |= xid_metrics.weight_sums(weights)
                relative = weights * (total / ranks.sum(weights.sum()).clamp(min=1e-12))
                losses = {name: relative * loss for name, loss in losses.items()}
            if config.temperatures is not None:
                sums |= {f"temperature_{name}": memory[f"{name}_state"][:, 0].sum() for name in MODALITIES}

            shares = self._shares()
            loss = torch.stack([shares[name] * losses[name].sum() for name in losses]).sum() / total * ranks.size
            sums = {f"loss_{name}": losses[name].detach().sum() for name in losses} | sums
            means = xid_metrics.means(sums, total, ranks)
            metrics = {"loss": torch.stack([shares[name] * means[f"loss_{name}"] for name in losses]).sum(), **means}
            if config.loss == "siglip":
                # Copies: FSDP takes the whole parameters away after the step.
                metrics["siglip_scale"] = self.siglip_log_scale.detach().exp().squeeze()
                metrics["siglip_bias"] = self.siglip_bias.detach().clone().squeeze()
            if config.monitor:
                metrics |= xid_metrics.monitored(config, queries, found, total, ranks)
        return {"loss": loss, "metrics": metrics, "memory": memory}

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Move banks, queue, moments and temperatures by the embeddings of the step, in global sample order."""
        config = self.config
        if config.weights is not None:
            for memory in memories:
                self.pair_weights.follow(memory["pair_sums"])
        if config.targets == "batch" and config.temperatures is None:
            return
        step = _gathered(memories, ranks)
        if config.targets == "bank":
            self.video_bank.update(step["row"], step["video"])
            self.audio_bank.update(step["row"], step["audio"])
        if config.targets == "queue":
            self.queue.push(step["row"], step["video"], step["audio"])
            self.momentum_encoder.follow(self.model, config.queue.momentum)
        for name in MODALITIES if config.temperatures is not None else ():
            self._temperatures(name).update(step["row"], step[f"{name}_state"])

    def _shares(self) -> dict[str, float]:
        """Each term's share of the loss; those without one are not computed."""
        config = self.config
        agreement = config.agreement.coefficient if config.agreement is not None else 0.0
        cross, within = (1 - agreement) * config.cross_share / 2, (1 - agreement) * (1 - config.cross_share) / 2
        shares = {"v2a": cross, "a2v": cross, "v2v": within, "a2a": within, "agreement": agreement}
        return {name: share for name, share in shares.items() if share > 0}

    def _candidates(self, queries: Queries, slow: Sides, ranks: Ranks, seed: int) -> Candidates:
        config = self.config
        if config.targets == "batch":
            return providers.from_batch(queries, ranks)
        if config.targets == "queue":
            return providers.from_queue(queries, slow, self.queue, ranks)
        banks = {"video": self.video_bank, "audio": self.audio_bank}
        if config.negatives == "all":
            return providers.from_bank_rows(queries, banks, self.absent)
        positives = self.mining.positives if config.agreement is not None else None
        drawn = providers.draw_rows(queries, self.usable, config.negatives, seed, positives)
        return providers.from_bank_draws(queries, banks, drawn)

    def _contrasts(self, queries: Queries, found: Candidates, memory: dict[str, Tensor]) -> dict[str, Contrast]:
        """Every direction that has a share of the loss. New states of temperatures are put into `memory`."""
        config, shares = self.config, self._shares()
        soft = self._soft(queries, found)
        contrasts = {}
        for name, (source, other) in DIRECTIONS.items():
            if name not in shares:
                continue
            sides = (queries.embeddings[source], found.targets[other], found.columns)
            if config.temperatures is not None:
                similarities = visible_scores(*sides, 1.0)
                loss, memory[f"{source}_state"] = self._temperatures(source)(
                    similarities, found.columns.positive, queries.rows
                )
                contrasts[name] = judged(loss, similarities, found.columns)
            elif config.loss == "siglip":
                contrasts[name] = siglip(*sides, scale=self.siglip_log_scale.exp(), bias=self.siglip_bias)
            else:
                partition = self.partition if config.loss == "nce" else None
                contrasts[name] = contrast(config, *sides, soft=soft.get(name), partition=partition)
        return contrasts

    def _soft(self, queries: Queries, found: Candidates) -> dict[str, Soft]:
        """The soft targets of the cross-modal directions; terms within a modality have none."""
        config = self.config.soft
        if config is None:
            return {}
        sides = {
            name: Side(queries.embeddings[name].detach(), found.own[name], found.targets[name].detach())
            for name in MODALITIES
        }
        agreement = pair_scores(sides["video"].targets, sides["audio"].targets) if config.strategy == "cycle" else None
        return {
            name: soft_targets(
                config.strategy,
                sides[source],
                sides[other],
                share=config.share,
                temperature=config.temperature,
                agreement_temperature=config.agreement_temperature,
                query=config.query,
                own=config.neighbor_own or config.strategy != "neighbor",
                agreement=agreement,
            )
            for name, (source, other) in DIRECTIONS.items()
            if source != other
        }

    def _agreement(self, queries: Queries, found: Candidates) -> Tensor:
        """[B]: within each modality, the mined rows against some of the negatives drawn for the query (methods B.5)."""
        config = self.config
        assert config.agreement is not None
        rows = self.mining.positives[queries.rows].long()
        partition = self.partition if config.loss == "nce" else None
        terms = [
            against_positives(
                queries.embeddings[name],
                bank.read(rows),
                found.targets[name][:, 1 : 1 + config.agreement.negatives],
                temperature=config.temperature,
                partition=partition,
            )
            for name, bank in (("video", self.video_bank), ("audio", self.audio_bank))
        ]
        return (terms[0] + terms[1]) / 2

    def _measure_partition(self, queries: Queries, found: Candidates, ranks: Ranks) -> None:
        """Set Z once, from the first batch's negatives of video to audio, or of video to video (methods B.2)."""
        other = "audio" if self.config.cross > 0 else "video"
        sides = (queries.embeddings["video"].detach(), found.targets[other].detach(), found.columns)
        scores = visible_scores(*sides, self.config.temperature)
        total, number = ranks.sum(partition_sums(scores, found.columns.positive))
        measured = total / number
        if torch.isfinite(measured):
            self.partition.copy_(measured)

    def _temperatures(self, modality: str) -> Temperatures:
        return cast(Temperatures, self.temperatures[modality])

    def _equip(self) -> None:
        """Make the parts that the config needs and that are not there yet; hand new settings to those that are."""
        config, dim = self.config, self.model.dim
        if config.targets == "bank":
            self._equip_banks(dim)
        if config.targets == "queue" and not hasattr(self, "queue"):
            self.momentum_encoder = MomentumEncoder(self.model)
            self.queue = TargetQueue(config.queue.size, dim)
        if config.loss == "nce" and not hasattr(self, "partition"):
            self.register_buffer("partition", torch.zeros(()))  # 0: not measured yet
        if config.weights is not None:
            moments = self.pair_weights.state_dict() if hasattr(self, "pair_weights") else {}
            self.pair_weights = PairWeights(config.weights)
            self.pair_weights.load_state_dict(moments, strict=bool(moments))
        if config.agreement is not None:
            if len(self.usable) < config.agreement.positives + 2:
                raise ConfigError(
                    f"task.agreement.positives is {config.agreement.positives}, which needs at least two rows more, not"
                    f" {len(self.usable)}; lower it"
                )
            self.mining = Mining(config.agreement, self.rows, self.steps_per_pass)
        if config.temperatures is not None:
            learned = self.temperatures.state_dict() if hasattr(self, "temperatures") else {}
            settings = dataclasses.asdict(config.temperatures)
            self.temperatures = nn.ModuleDict({name: Temperatures(self.rows, **settings) for name in MODALITIES})
            self.temperatures.load_state_dict(learned, strict=bool(learned))
        self.to(next(self.model.parameters()).device)

    def _equip_banks(self, dim: int) -> None:
        config = self.config
        if len(self.usable) < 2:
            raise ConfigError(f"task.targets is 'bank', which needs at least 2 rows, not {len(self.usable)}")
        for number, name in enumerate(("video_bank", "audio_bank")):
            if not hasattr(self, name):
                bank = make_bank(config, self.rows, dim, seed=2 * self.seed + number, ranks=self._ranks)
                setattr(self, name, bank)
            getattr(self, name).momentum = config.bank_momentum
        if config.bank_sharded:  # DDP would give all ranks the shards of the first
            self._ddp_params_and_buffers_to_ignore = ["video_bank.shard", "audio_bank.shard"]


def _gathered(memories: list[dict[str, Tensor]], ranks: Ranks) -> dict[str, Tensor]:
    """What the micro-batches of a step left behind for each query, in global sample order."""
    parts: dict[str, list[Tensor]] = {name: [] for name in memories[0] if name != "pair_sums"}
    for memory in memories:
        counts = ranks.counts(len(memory["row"]))
        for name, gathered in parts.items():
            gathered.append(ranks.gather(memory[name], counts))
    return {name: torch.cat(gathered) for name, gathered in parts.items()}
