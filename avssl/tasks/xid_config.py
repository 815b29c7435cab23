"""Settings of cross-modal instance discrimination. No torch here, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig


@dataclass
class XIDConfig:
    """Cross-modal instance discrimination (AVID and the xID base of Robust-xID)."""

    name: Literal["xid"] = "xid"
    loss: Literal["softmax", "nce"] = "softmax"
    """`softmax`: cross-entropy over the candidates; `nce`: binary noise-contrastive estimation, as AVID was trained."""
    targets: Literal["bank", "batch"] = "bank"
    """`bank`: slow targets and sampled negatives from two memory banks; `batch`: the other modality of the global
    (micro-)batch, with gradient on both sides."""
    temperature: float = 0.07
    negatives: int = 1024
    """Sampled negatives a query (K); used with `targets: bank`."""
    bank_momentum: float = 0.5
    """Share of the old target that stays at an update; used with `targets: bank`."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"task.temperature is {self.temperature}, but must be positive")
        if self.negatives < 1:
            raise ConfigError(f"task.negatives is {self.negatives}, but must be at least 1")
        if not 0 <= self.bank_momentum < 1:
            raise ConfigError(f"task.bank_momentum is {self.bank_momentum}, but must be in [0, 1)")

    def check(self, data: DataConfig, model: ModelConfig) -> None:
        """`ConfigError` where data or model do not give what this task needs."""
        if model.video is None or model.audio is None:
            raise ConfigError("task.name is 'xid', which needs both model.video and model.audio")
        if data.audio is not None and data.audio.optional:
            raise ConfigError(
                "task.name is 'xid', which needs the sound of every sample; set data.audio.optional to false"
            )
