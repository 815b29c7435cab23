"""Settings of protocols: fine-tuning, classifiers on each stage, and a finished classifier. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.finetuning.training_config import ClipTraining


@dataclass
class Classify:
    """A finished classifier, asked about labelled files."""

    data: str
    """A folder of class folders, or a CSV with the columns path and label; where it has split, the rows of test."""
    name: Literal["classify"] = "classify"
    root: str | None = None
    """What the paths of a CSV start from; null: its folder."""


@dataclass
class FinetuneProtocol:
    """Fine-tuning of a whole tower with a linear layer on its pooled features; the projection head is dropped."""

    data: DatasetConfig
    """What is classified."""
    name: Literal["finetune"] = "finetune"
    modality: Literal["video", "audio"] = "video"
    """The tower that is tuned."""
    fit: ClipTraining = field(default_factory=ClipTraining)
    """How; the classifier starts at random and is trained alone during the warm-up."""


@dataclass
class LinearStages:
    """A linear classifier on each stage of a frozen video tower, all trained together."""

    data: DatasetConfig
    """What is classified."""
    name: Literal["linear_stages"] = "linear_stages"
    stages: dict[str, int] = field(default_factory=lambda: {"conv2x": 12, "conv3x": 8, "conv4x": 6, "conv5x": 4})
    """Stages by name, and to what height and width the maximum pools their maps (time to 1)."""
    fit: ClipTraining = field(default_factory=ClipTraining)
    """How; the tower stays as it is, so `warmup_epochs` only adds epochs and `dropout` has no effect."""

    def __post_init__(self) -> None:
        if not self.stages or any(type(side) is not int or side < 1 for side in self.stages.values()):
            raise ConfigError("protocol.stages: name at least one stage with a side of 1 or more, as in {conv5x: 4}")
