"""How a recording is separated, whatever is asked for. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from avssl.errors import ConfigError

THRESHOLD = 0.2  # of a probability, from which on a class counts as heard: the published value


@dataclass(frozen=True)
class SeparationOptions:
    """overlap: of neighbouring chunks, as a share of a chunk, cross-faded by sin² and cos²; 0.5 is the Hann window, 0
    the published way, which leaves a seam at every border. threshold: chunks in which the tagger gives no class of a
    query this probability are silent; 0: nothing is silenced. batch_size: sounds that the network is given at once."""

    overlap: float = 0.5
    threshold: float = THRESHOLD
    batch_size: int = 4

    def __post_init__(self):
        if not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"overlap: {self.overlap} of a chunk is not possible; give 0 to 0.5")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: {self.threshold} is no probability; give 0 to 1")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: {self.batch_size} is not positive; give at least 1")
