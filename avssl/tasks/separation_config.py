"""Settings of training a separator from weak labels. No torch here, so that `--help` stays fast.

What they mean: docs/separation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.sound_config import SeparatorModelConfig
from avssl.tasks.tagging_config import check_sound


@dataclass
class SeparationConfig:
    """Universal source separation: mix the segments of a batch, and give each back for its own query (USS)."""

    name: Literal["separation"] = "separation"
    encoder: str | None = None
    """Model folder of what makes the query's features, the tagger or two-tower model that `model.source` names. It
    stays as it is and becomes part of the trained model. null: the encoders of `run.init`."""
    sources: int = 2
    """Segments in a mixture."""
    loss: Literal["l1_wav", "l1_wav_l1_sp", "sdr"] = "l1_wav"
    """Mean absolute error of the waveform; the same and that of the magnitude spectrogram; or the negative ratio of
    target and error in dB (at most 30), which weighs quiet targets as much as loud ones."""
    start_in_phase: bool = False
    """New weights begin with half the mixture at the mixture's phase. From random phases, as in the published code,
    silence is the first thing that is learned, which small budgets never leave. Without effect on given weights."""
    bend_db: float = 0.0
    """Each segment is heard through a random smooth filter, whose gain deviates by so many dB (0: none): sounds of few
    instruments and microphones then teach more."""
    loudness_db: tuple[float, float] | None = None
    """Loudness of the other segments beside the target's energy, uniform in this range (AudioSep: -10 to 10)."""
    peak: float | None = None
    """Scale mixtures that exceed 1 down to this peak, targets with them (AudioSep: 0.9)."""

    def __post_init__(self) -> None:
        if self.sources < 2:
            raise ConfigError(f"task.sources is {self.sources}, but a mixture has 2 or more")
        if self.bend_db < 0:
            raise ConfigError(f"task.bend_db is {self.bend_db}, but a deviation is 0 or more")
        if self.loudness_db is not None and self.loudness_db[0] > self.loudness_db[1]:
            raise ConfigError(f"task.loudness_db {list(self.loudness_db)} must rise")
        if self.peak is not None and not 0 < self.peak <= 1:
            raise ConfigError(f"task.peak is {self.peak}, but must lie above 0 and at most at 1")

    def check(self, data: DataConfig, model: SeparatorModelConfig) -> None:
        """`ConfigError` where data or model do not give what this task needs."""
        check_sound("separation", data, model.separator.rate_hz)
        if model.source == "vector":
            raise ConfigError("model.source is 'vector', which nothing here makes from sounds; set tagger or two_tower")
        if model.tagger is not None and model.tagger.rate_hz != model.separator.rate_hz:
            raise ConfigError("model.tagger.rate_hz and model.separator.rate_hz differ; set them equal")
        if self.sources > data.batch_size:
            raise ConfigError(
                f"task.sources is {self.sources}, but data.batch_size only {data.batch_size}: a segment would be mixed"
                " with itself"
            )

    def check_change(self, later: SeparationConfig) -> None:
        """Every change between phases is possible."""
