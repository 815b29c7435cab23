"""Settings of audio-visual spatial alignment. No torch here, so that `--help` stays fast.

What they mean: docs/avsa.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig


@dataclass
class AVSAConfig:
    """Audio-visual spatial alignment of 360° video, its first phase, and its baseline."""

    name: Literal["avsa"] = "avsa"
    mode: Literal["avsa", "avc", "avts"] = "avsa"
    """`avsa`: sound and picture of each view, predicted from the other modality of all views, must be told from those
    of other views and samples; `avts`: the same with moments (`data.clips`) in the place of views; `avc`: sound and
    picture of a sample, the largest features over its views and moments, must find each other in the batch."""
    negatives: Literal["easy+hard", "hard", "easy"] = "easy+hard"
    """`hard`: other views (moments) of the sample; `easy`: other samples. Without effect on `avc`."""
    candidates: Literal["paper", "released"] = "paper"
    """Easy negatives: all views of other samples (N K candidates in all), or as in the released code only the view of
    the same number (K + N - 1). Without effect on `avc`."""
    temperature: float = 0.07
    """Of the similarities."""
    gather: bool = True
    """Candidates come from the batch of all processes; otherwise each process has its own part only."""

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"task.temperature is {self.temperature}, but must be positive")

    def check(self, data: DataConfig, model: ModelConfig) -> None:
        """`ConfigError` where data or model do not give what this task needs."""
        if model.video is None or model.audio is None or model.alignment is None:
            raise ConfigError("task.name is 'avsa', which needs model.video, model.audio and model.alignment")
        if model.head is not None:
            raise ConfigError("task.name is 'avsa', whose heads are in model.alignment; set model.head to null")
        if data.audio is not None and data.audio.optional:
            raise ConfigError("task.name is 'avsa', which needs sound; set data.audio.optional to false")
        if self.mode != "avc" and model.alignment.depth is None:
            raise ConfigError(
                f"task.mode is {self.mode!r}, but model.alignment.depth is null, so nothing is predicted; set it from 0"
                " to 8, or task.mode to avc"
            )
        if data.views is not None and data.views.switches != model.alignment.switches:
            raise ConfigError(
                "data.views.switches and model.alignment.switches differ; set them equal: the model's tell how views"
                " for it are made"
            )
        views, clips = data.views.views if data.views is not None else 0, data.clips
        if self.mode == "avsa" and (views < 2 or clips != 1):
            raise ConfigError(
                f"task.mode is 'avsa', which compares views of one moment, but data.views has {views} and data.clips is"
                f" {clips}; set data.views.views to 2 or more and data.clips to 1"
            )
        if self.mode == "avts" and (views > 1 or clips < 2):
            raise ConfigError(
                f"task.mode is 'avts', which compares moments of one view, but data.views has {views} and data.clips is"
                f" {clips}; set data.views.views to 1 (or data.views to null) and data.clips to 2 or more"
            )

    def check_change(self, later: AVSAConfig) -> None:
        """`ConfigError` where a later phase cannot go on from one with these settings. Ask for every pair of phases."""
        if self.mode != "avc" and later.mode == "avc":
            raise ConfigError(
                f"task.mode goes from {self.mode!r} to 'avc', which would let weight decay undo the transformers; put"
                " the avc phase first"
            )
