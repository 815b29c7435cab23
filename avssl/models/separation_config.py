"""What a tagger, a separator and the query between them are, as plain typed values. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError


@dataclass
class TaggerConfig:
    """A Cnn14. The defaults are the published network; a shorter or narrower `channels` makes a smaller one.

    decision: "clip" pools over time and then decides (tagging, queries); "frame" decides at every time step and takes
    the largest (where in the clip a sound is). Both have the same parameters: the kind cannot be seen from weights.
    """

    decision: Literal["clip", "frame"] = "clip"
    classes: int = 527
    channels: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 1024, 2048])  # of the blocks
    rate_hz: int = 32000
    fft: int = 1024
    hop: int = 320
    bands: int = 64  # mel
    low_hz: float = 50.0
    high_hz: float = 14000.0
    dropout: float = 1.0  # in training, as a share of the published 0.2 after blocks and 0.5 around the embedding

    def __post_init__(self):
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"tagger.dropout: {self.dropout} is no share of the published dropout; give 0 to 1")
        _positive(self, "tagger", "classes", "rate_hz", "fft", "hop", "bands")
        if not self.channels or min(self.channels) < 1:
            raise ConfigError(f"tagger.channels: {self.channels} are no widths; give one positive number a block")
        if self.bands >> (len(self.channels) - 1) == 0:
            raise ConfigError(
                f"tagger.bands: {self.bands} bands are halved {len(self.channels) - 1} times, to none; "
                "take more bands or fewer blocks"
            )
        if not 0 <= self.low_hz < self.high_hz <= self.rate_hz / 2:
            raise ConfigError(
                f"tagger: low_hz {self.low_hz} and high_hz {self.high_hz} must rise and lie below half of rate_hz"
            )

    @property
    def embedding_dim(self) -> int:
        return self.channels[-1]

    @property
    def step_frames(self) -> int:
        """Spectrogram frames that share one decision of the frame kind: 32, which are 0.32 s, by default."""
        return 1 << (len(self.channels) - 1)


@dataclass
class SeparatorConfig:
    """A ResUNet30. The defaults are the published network; narrower `channels` and a shorter `fft` suit CPUs.

    condition_dim: length of the condition vector: 527 for class probabilities, 2048 for Cnn14's embedding, 512 for
    AudioSep. channels: of the six encoder blocks and the one at the bottom; the decoder mirrors them.
    """

    condition_dim: int
    channels: list[int] = field(default_factory=lambda: [32, 64, 128, 256, 384, 384, 384])
    rate_hz: int = 32000
    fft: int = 2048
    hop: int = 320

    def __post_init__(self):
        _positive(self, "separator", "condition_dim", "rate_hz", "fft", "hop")
        if len(self.channels) != 7 or min(self.channels) < 1:
            raise ConfigError(f"separator.channels: {self.channels} must be seven positive widths, one a block")
        if self.fft % 128:
            raise ConfigError(f"separator.fft: {self.fft} is no multiple of 128; half of it is halved six times")
        if self.hop > self.fft // 2:
            raise ConfigError(f"separator.hop: {self.hop} leaves gaps between windows; take at most half of fft")


@dataclass
class QueryConfig:
    """What of a sound (or of a class) becomes the condition of the separator.

    kind: "one_hot" a class, "soft" the tagger's probabilities, "embedding" the tagger's embedding, "adaptive" a small
    trained network on top of the embedding, "shortcut" the embedding plus a trained correction to it.
    features: length of what goes in: classes for one_hot and soft, else the embedding's width.
    """

    kind: Literal["one_hot", "soft", "embedding", "adaptive", "shortcut"]
    features: int
    hidden: int = 2048  # width of the trained network
    out: int | None = None  # length of the condition; None: `features`; only "adaptive" may change it

    def __post_init__(self):
        _positive(self, "query", "features", "hidden")
        if self.out is not None and self.kind != "adaptive" and self.out != self.features:
            raise ConfigError(f"query.out: {self.kind!r} keeps {self.features} features; leave `out` away")

    @property
    def condition_dim(self) -> int:
        return self.out or self.features

    @property
    def reads_embedding(self) -> bool:
        return self.kind in ("embedding", "adaptive", "shortcut")


Config = TaggerConfig | SeparatorConfig | QueryConfig


def _positive(config: Config, where: str, *keys: str) -> None:
    for key in keys:
        if getattr(config, key) < 1:
            raise ConfigError(f"{where}.{key}: {getattr(config, key)} is not positive; give at least 1")
