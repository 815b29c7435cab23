"""What the folder of a classifier describes: a two-tower model, heads on its features, class names. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from avssl.config import build
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig

Modality = Literal["video", "audio"]


@dataclass
class MomentConfig:
    """The moment-probing head (`avssl.models.moment_head`)."""

    width: int = 512
    """Channels that a tower's last map is projected to, together."""
    parts: int = 4
    """How many parts these are cut into; moments are between neighbouring parts."""
    center: Literal["scalar", "token", "none"] = "scalar"
    """What is subtracted before moments are formed: one mean over all numbers of an example, as published; the mean
    token, which makes covariances; nothing."""

    def __post_init__(self) -> None:
        if self.parts < 2 or self.width % self.parts or self.width // self.parts < 7:
            raise ConfigError(
                f"moment: width {self.width} must be a multiple of parts {self.parts}, at least 2 of 7 channels or more"
            )


@dataclass
class ClassifierConfig:
    """A two-tower model with a head for each modality; logits of both are added."""

    kind: ClassVar[str] = "classifier"

    backbone: ModelConfig
    classes: list[str]
    """Names, in the order of the logits."""
    modalities: list[Modality] = field(default_factory=lambda: ["video"])
    """What is looked at, and listened to."""
    head: Literal["linear", "cosine", "moment"] = "linear"
    """On the tower's pooled features: a linear layer, or the cosine to a vector of each class; on its last map: moment
    probing beside a linear layer."""
    unit: bool = False
    """Scale a feature vector to unit length first (`linear`)."""
    dropout: float = 0.0
    """Of the features, in training."""
    adapter_rank: int = 0
    """Rank of the adapters behind each stage of the towers (`avssl.models.adapters`); 0: none."""
    moment: MomentConfig = field(default_factory=MomentConfig)
    window_s: float = 2.0
    """Files are classified by windows of this length, whose probabilities are averaged."""
    hop_s: float = 1.0
    """From the start of one window to that of the next."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ConfigError("classes: a classifier needs the names of at least 2 classes, each once")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ConfigError("modalities: name video, audio or both, each once")
        for modality in self.modalities:
            if getattr(self.backbone, modality) is None:
                raise ConfigError(f"modalities: has {modality}, but the model has no {modality} tower")
        if not 0 <= self.dropout < 1 or self.adapter_rank < 0 or self.window_s <= 0 or self.hop_s <= 0:
            raise ConfigError("dropout must be in [0, 1), adapter_rank 0 or more, window_s and hop_s positive")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str = "model") -> ClassifierConfig:
        """The inverse of `to_dict`. Raises ConfigError naming an unknown, missing or mistyped key."""
        return build(cls, value, where)

    def without_files(self) -> ClassifierConfig:
        """A copy that no longer names files to start from."""
        return dataclasses.replace(self, backbone=self.backbone.without_files())
