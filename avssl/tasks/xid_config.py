"""Settings of cross-modal instance discrimination. No torch here, so that `--help` stays fast.

What the options mean together, and what they cost: docs/objectives.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig


@dataclass
class QueueConfig:
    """The momentum encoder and the queue of its embeddings; used with `targets: queue`."""

    size: int = 65536
    """Embeddings of earlier steps that serve as negatives, beside those of the batch."""
    momentum: float = 0.999
    """Share of the slow encoder that stays at each step."""

    def __post_init__(self) -> None:
        _at_least("task.queue.size", self.size, 1)
        _share("task.queue.momentum", self.momentum)


@dataclass
class WeightsConfig:
    """Weights of pairs by how well their slow targets agree: faulty positives count less (W-xID)."""

    minimum: float = 0.25
    """Smallest weight."""
    shift: float = 0.0
    """Standard deviations by which the middle of the curve lies above the mean score; higher is stricter."""
    sharpness: float = 0.5
    """Variance of the curve as a share of that of the scores; towards 0 it becomes a step."""
    truncation: Literal["affine", "clamp"] = "affine"
    """`affine` squeezes the curve into [minimum, 1]; `clamp` cuts it off below `minimum`."""
    statistics: Literal["bank", "batch"] = "bank"
    """Mean and deviation of the scores: exact over all rows of the banks, or a moving average over batches."""
    every_passes: float = 1.0
    """Passes between two measurements; used with `statistics: bank`."""
    momentum: float = 0.99
    """Share of the old moments that stays at a step; used with `statistics: batch`."""

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= 1:
            raise ConfigError(f"task.weights.minimum is {self.minimum}, but must be in [0, 1]")
        _positive("task.weights.sharpness", self.sharpness)
        _positive("task.weights.every_passes", self.every_passes)
        _share("task.weights.momentum", self.momentum)


@dataclass
class SoftConfig:
    """Soft targets: candidates that may be partners too get a part of the target's mass (S-xID)."""

    strategy: Literal["bootstrapping", "swapped", "neighbor", "cycle"] = "cycle"
    """What the soft targets are made of: the query's own posterior, that of the other modality's query, similarity
    within the modality, or `swapped` with a preference for candidates whose own two sides agree."""
    share: float = 0.5
    """Mass they get; the own partner gets the rest."""
    temperature: float = 0.02
    """Of the similarities they are made of."""
    agreement_temperature: float = 0.07
    """Of the candidates' own agreement; used with `strategy: cycle`."""
    query: Literal["online", "memory"] = "online"
    """Which side of the sample looks for its like: the embedding of this step, or its slow target."""
    neighbor_own: bool = False
    """Leave the sample itself among its neighbours (at temperature 0.02 it then gets nearly all of the mass)."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"task.soft.share is {self.share}, but must be in [0, 1]")
        _positive("task.soft.temperature", self.temperature)
        _positive("task.soft.agreement_temperature", self.agreement_temperature)
        if self.neighbor_own and self.strategy != "neighbor":
            raise ConfigError(
                f"task.soft.neighbor_own is true, but task.soft.strategy is {self.strategy!r}, which always keeps the"
                " sample itself; set one of them back"
            )


@dataclass
class AgreementConfig:
    """Other rows on which both modalities agree, as further positives within each modality (AVID-CMA)."""

    positives: int = 32
    """Rows that are mined for each row."""
    negatives: int = 64
    """Of the `task.negatives` drawn, how many are used here."""
    every_passes: float = 50.0
    """Passes between two minings; each but the first is spread over many steps."""
    mode: Literal["consensus", "union", "video", "audio"] = "consensus"
    """Agreement of two rows: the smaller or the larger of their two similarities, or one of them."""
    coefficient: float = 0.5
    """Share of this term in the loss; instance discrimination gets the rest."""

    def __post_init__(self) -> None:
        _at_least("task.agreement.positives", self.positives, 1)
        _at_least("task.agreement.negatives", self.negatives, 1)
        _positive("task.agreement.every_passes", self.every_passes)
        if not 0 < self.coefficient <= 1:
            raise ConfigError(f"task.agreement.coefficient is {self.coefficient}, but must be in (0, 1]")


@dataclass
class TemperaturesConfig:
    """A learned temperature for each row and modality instead of `task.temperature` (iSogCLR)."""

    start: float = 0.01
    """Temperature of a row before its second visit."""
    low: float = 0.005
    """Lowest temperature."""
    high: float = 0.05
    """Highest temperature."""
    rho: float = 6.0
    """How far a row's distribution over its negatives is driven from the uniform one (KL divergence, in nats)."""
    average: float = 0.8
    """Share of the new batch in a row's running normaliser."""
    smooth: float = 0.9
    """Share of the new gradient in the momentum of a row's temperature."""
    rate: float = 0.03
    """Step of a temperature along it."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.start <= self.high:
            raise ConfigError(
                f"task.temperatures: start {self.start} is not from low {self.low} to high {self.high}, all positive"
            )
        for name in ("average", "smooth"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"task.temperatures.{name} is {getattr(self, name)}, but must be in (0, 1]")
        if self.rate < 0:
            raise ConfigError(f"task.temperatures.rate is {self.rate}, but must not be negative")


@dataclass
class XIDConfig:
    """Cross-modal instance discrimination: AVID, AVID-CMA, xID, W-xID, S-xID, Robust-xID and what lies between."""

    name: Literal["xid"] = "xid"
    loss: Literal["softmax", "nce", "siglip"] = "softmax"
    """`softmax`: cross-entropy over the candidates; `nce`: binary noise-contrastive estimation, as AVID was trained;
    `siglip`: a question of its own for each pair, with learned scale and bias."""
    targets: Literal["bank", "batch", "queue"] = "bank"
    """`bank`: slow targets and negatives from two memory banks; `batch`: the other modality of the global
    (micro-)batch, with gradient on both sides; `queue`: this and earlier batches as a momentum encoder sees them."""
    temperature: float = 0.07
    """Of the similarities; with `loss: siglip` where the learned scale starts (1 / temperature)."""
    negatives: int | Literal["all"] = 1024
    """Sampled negatives a query (K), or all other rows; used with `targets: bank`."""
    bank_momentum: float = 0.5
    """Share of the old target that stays at an update; used with `targets: bank`."""
    bank_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """How the banks are stored; what is read from them is computed in float32."""
    bank_sharded: bool = False
    """Split the banks over the processes instead of keeping a copy in each."""
    queue: QueueConfig = field(default_factory=QueueConfig)
    weights: WeightsConfig | None = None
    soft: SoftConfig | None = None
    cross: float = 1.0
    """Coefficient of the terms that look for the partner in the other modality."""
    within: float = 0.0
    """Coefficient of the terms that look for the sample's own slow target in the same modality; the two coefficients
    are divided by their sum (Cross-, Self- and Joint-AVID)."""
    agreement: AgreementConfig | None = None
    temperatures: TemperaturesConfig | None = None
    hard_share: float | None = None
    """Keep only this share of each query's negatives, the most similar ones; null: all."""
    monitor: bool = False
    """Also log uniformity of the embeddings and the effective number of negatives."""

    def __post_init__(self) -> None:
        _positive("task.temperature", self.temperature)
        if self.negatives != "all":
            _at_least("task.negatives", self.negatives, 1)
        _share("task.bank_momentum", self.bank_momentum)
        if self.hard_share is not None and not 0 < self.hard_share <= 1:
            raise ConfigError(f"task.hard_share is {self.hard_share}, but must be in (0, 1], or null")
        if self.cross < 0 or self.within < 0 or self.cross + self.within == 0:
            raise ConfigError("task.cross and task.within must not be negative, and not both 0")
        for condition, what, cure in self._contradictions():
            if condition:
                raise ConfigError(f"{what}; {cure}")

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        """What cannot be combined: (whether it is, the two keys and why, the cure)."""
        bank, softmax = self.targets == "bank", self.loss == "softmax"
        all_rows = self.negatives == "all"
        of_bank = self.weights is not None and self.weights.statistics == "bank"
        drawn = self.negatives if isinstance(self.negatives, int) else 0
        narrow = self.agreement is not None and not all_rows and self.agreement.negatives > drawn
        is_targets, is_loss = f"task.targets is {self.targets!r}", f"task.loss is {self.loss!r}"
        agreement, temperatures = self.agreement is not None, self.temperatures is not None
        soft, hard = self.soft is not None, self.hard_share is not None
        to_bank, to_softmax = "set task.targets to bank", "set task.loss to softmax"
        return [
            (all_rows and not bank, f"task.negatives is 'all', but {is_targets}", f"{to_bank} or give a number"),
            (
                self.bank_sharded and not bank,
                f"task.bank_sharded is true, but {is_targets}",
                "set either back",
            ),
            (
                all_rows and self.bank_sharded,
                "task.negatives is 'all', which reads whole banks, but task.bank_sharded splits them",
                "set task.bank_sharded to false or task.negatives to a number",
            ),
            (
                self.within > 0 and self.targets == "batch",
                "task.within is above 0, but with task.targets 'batch' a sample's target in its own modality is itself",
                "set task.targets to bank or queue, or task.within to 0",
            ),
            (of_bank and not bank, f"task.weights.statistics is 'bank', but {is_targets}", "set it to batch"),
            (
                soft and not softmax,
                f"task.soft needs a distribution over the candidates, but {is_loss}",
                f"{to_softmax} or task.soft to null",
            ),
            (
                soft and self.cross == 0,
                "task.soft acts on the cross-modal terms, but task.cross is 0",
                "raise task.cross or set task.soft to null",
            ),
            (
                hard and not softmax,
                f"task.hard_share chooses among the negatives of a softmax, but {is_loss}",
                f"{to_softmax} or task.hard_share to null",
            ),
            (
                hard and soft,
                "task.hard_share takes out the very candidates that task.soft gives mass to",
                "set one of them to null",
            ),
            (
                temperatures and (not softmax or soft or hard),
                "task.temperatures brings a loss of its own, which cannot be joined with task.soft or task.hard_share,"
                " or with another task.loss than softmax",
                "set task.temperatures to null, or these back",
            ),
            (
                temperatures and self.within > 0,
                "task.temperatures holds one temperature a row for the cross-modal terms, but task.within is above 0",
                "set task.within to 0 or task.temperatures to null",
            ),
            (
                agreement and not bank,
                f"task.agreement finds positives in the banks, but {is_targets}",
                f"{to_bank} or task.agreement to null",
            ),
            (
                agreement and all_rows,
                "task.agreement keeps mined positives out of the drawn negatives, but task.negatives is 'all'",
                "give a number of negatives or set task.agreement to null",
            ),
            (
                agreement and self.bank_sharded,
                "task.agreement compares whole banks, but task.bank_sharded splits them",
                "set one of them back",
            ),
            (
                agreement and self.loss == "siglip",
                "task.agreement has several positives a query, but task.loss is 'siglip'",
                "set task.loss to nce or softmax, or task.agreement to null",
            ),
            (
                narrow,
                "task.agreement.negatives is larger than task.negatives, of which they are a part",
                "lower the first or raise the second",
            ),
        ]

    @property
    def cross_share(self) -> float:
        """Share of the cross-modal terms in instance discrimination."""
        return self.cross / (self.cross + self.within)

    def check(self, data: DataConfig, model: ModelConfig) -> None:
        """`ConfigError` where data or model do not give what this task needs."""
        if model.video is None or model.audio is None:
            raise ConfigError("task.name is 'xid', which needs both model.video and model.audio")
        if data.audio is not None and data.audio.optional:
            raise ConfigError(
                "task.name is 'xid', which needs the sound of every sample; set data.audio.optional to false"
            )

    def check_change(self, later: XIDConfig) -> None:
        """`ConfigError` where a later phase cannot go on from one with these settings. Ask for every pair of phases."""
        if "siglip" in (self.loss, later.loss) and self.loss != later.loss:
            raise ConfigError(
                f"task.loss goes from {self.loss!r} to {later.loss!r}, but siglip has parameters of its own that a"
                " phase can neither add nor drop; use it in all phases or in none"
            )
        kept = []
        if self.targets == later.targets == "bank":
            kept = [(key, getattr(self, key), getattr(later, key)) for key in ("bank_dtype", "bank_sharded")]
        if self.targets == later.targets == "queue":
            kept = [("queue.size", self.queue.size, later.queue.size)]
        for key, before, after in kept:
            if before != after:
                raise ConfigError(
                    f"task.{key} goes from {before} to {after}, but what it holds is kept from phase to phase; give all"
                    " phases the same"
                )


def _positive(key: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"{key} is {value}, but must be positive")


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{key} is {value}, but must be at least {least}")


def _share(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{key} is {value}, but must be in [0, 1)")
