"""Settings of the discovery of classes without labels. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig


@dataclass
class DiscoveryConfig:
    """SCAN's clusters, and those of k-means, on features that no longer change; labels only judge them."""

    data: DatasetConfig
    """What is clustered."""
    name: Literal["discovery"] = "discovery"
    embeddings: str | None = None
    """A table of `avssl-embed` (.npz or .parquet) that has the files; null: made with `model` into embeddings.npz of
    `out`."""
    feature: str = "video"
    """A column of vectors: `video`, `audio`, a layer such as `video.conv5x`; `both` is video and audio side by side."""
    window_s: float = 2.0
    """Length of the windows that are embedded. Without effect if `embeddings` is given."""
    hop_s: float = 1.0
    """From the start of one window to that of the next. Without effect if `embeddings` is given."""
    together: bool = True
    """Clusters are found in all items and judged on them, which uses no label of any; false: found in the training
    items of each fold and judged on its test items."""
    clusters: int | None = None
    """How many; null: as many as there are classes."""
    neighbours: int = 10
    """Nearest items that should fall into the cluster of an item; fewer than the smallest class has items."""
    agreement: Literal["mean", "consensus", "union"] = "mean"
    """With `feature: both`, how similar two items are: the mean of the cosines of picture and sound, the smaller one
    (consensus), or the larger one (union)."""
    heads: int = 10
    """Linear classifiers trained side by side from different starts; the one with the lowest loss is taken."""
    entropy_weight: float = 5.0
    """What equal use of the clusters counts, against the agreement of neighbours."""
    passes: int = 100
    """Over the training items."""
    batch_size: int = 512
    """Items a step."""
    lr: float = 0.01
    """Of Adam."""

    def __post_init__(self) -> None:
        for key in ("neighbours", "heads", "passes", "batch_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"protocol.{key} is {getattr(self, key)}, but must be 1 or more")
        for key in ("lr", "entropy_weight"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"protocol.{key} is {getattr(self, key)}, but must be positive")
        if self.clusters is not None and self.clusters < 2:
            raise ConfigError(f"protocol.clusters is {self.clusters}, but must be 2 or more")
        if self.agreement != "mean" and self.feature != "both":
            raise ConfigError(f"protocol.agreement {self.agreement!r} needs protocol.feature both")
