"""Settings of training a tagger from weak labels. No torch here, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.sound_config import TaggerModelConfig


@dataclass
class TaggingConfig:
    """Which classes are heard anywhere in a clip: binary cross-entropy of every class (PANNs)."""

    name: Literal["tagging"] = "tagging"
    mixup: float = 1.0
    """Clips are mixed with their neighbours in the batch, and their labels alike, in a proportion drawn from
    Beta(mixup, mixup); 0: not mixed."""

    def __post_init__(self) -> None:
        if self.mixup < 0:
            raise ConfigError(f"task.mixup is {self.mixup}, but must be 0 or more")

    def check(self, data: DataConfig, model: TaggerModelConfig) -> None:
        """`ConfigError` where data or model do not give what this task needs."""
        check_sound("tagging", data, model.tagger.rate_hz)
        if data.anchors is not None:
            raise ConfigError("task.name is 'tagging', which hears whole clips; set data.anchors to null")

    def check_change(self, later: TaggingConfig) -> None:
        """Every change between phases is possible."""


def check_sound(task: str, data: DataConfig, rate_hz: int) -> None:
    """`ConfigError` unless the data are labelled mono sound at the networks' rate."""
    if data.video is not None or data.audio is None or data.clips != 1:
        raise ConfigError(f"task.name is {task!r}, which hears one sound a sample: set data.video to null")
    if data.labels is None:
        raise ConfigError(f"task.name is {task!r}, which learns from labels; set data.labels, for example to 'label'")
    if data.audio.rate_hz != rate_hz:
        raise ConfigError(f"data.audio.rate_hz is {data.audio.rate_hz}, the model's is {rate_hz}; set them equal")
    if data.audio.channels != 1 or data.audio.optional:
        raise ConfigError(f"task.name is {task!r}: set data.audio.channels to 1 and data.audio.optional to false")
