"""How towers are trained on labelled files; shared by `avssl-finetune` and the protocols of `avssl-eval`. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.data.config import AugmentConfig
from avssl.errors import ConfigError


@dataclass
class ClipTraining:
    """Clips of the files, and how the weights follow them (defaults: small data on one machine)."""

    epochs: int = 20
    """Passes over all files; the rate falls at `drop_at`."""
    warmup_epochs: int = 0
    """Passes before these in which the heads alone are trained."""
    clips: int = 4
    """Clips a file and epoch, at random moments. Where the stages before the trained ones stay, they are computed once,
    for `test_clips` evenly spread clips, without changes."""
    test_clips: int = 10
    """Evenly spread clips of a file whose probabilities are averaged where it is judged."""
    batch_size: int = 16
    """Clips a step."""
    lr: float = 1e-4
    """Of Adam."""
    weight_decay: float = 0.0
    drop_at: list[int] = field(default_factory=lambda: [10, 15])
    """Epochs, not counting the warm-up, after which the rate is multiplied by `drop`."""
    drop: float = 0.3
    dropout: float = 0.0
    """Of the features before a linear head."""
    frames: int | None = None
    """Frames a clip; null: the model's."""
    fps: float | None = None
    """Frames a second; null: the model's."""
    size_px: int | None = None
    """Side of the crop; null: the model's. The resized short side follows in proportion."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random crops, flips, colours and levels of the clips that towers are trained on."""
    batch_norm: Literal["eval", "train"] = "eval"
    """`eval` keeps the pretrained statistics, which is steadier where files are few; `train`: those of the batch, also
    during the warm-up, as AVID did."""
    balance: bool = True
    """Weigh classes alike, however many files each has."""
    patience: int | None = 5
    """Stop after so many epochs without a better score on the validation files, and keep the best; null: never."""
    workers: int = 2
    """Decoding processes; 0 decodes in the main process. Results do not depend on it."""

    def __post_init__(self) -> None:
        for name in ("epochs", "clips", "test_clips", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}, but must be 1 or more")
        for name in ("warmup_epochs", "weight_decay", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"fit.{name} must not be negative")
        if self.lr <= 0 or not 0 <= self.dropout < 1 or not 0 < self.drop <= 1:
            raise ConfigError("fit.lr must be positive, fit.dropout in [0, 1), fit.drop in (0, 1]")
        if self.patience is not None and self.patience < 1:
            raise ConfigError("fit.patience must be 1 or more, or null")
        if (self.frames or 1) < 1 or (self.fps or 1) <= 0 or (self.size_px or 8) < 8:
            raise ConfigError("fit.frames and fit.fps must be positive, fit.size_px 8 or more, or null")
