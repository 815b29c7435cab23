"""Settings of the evaluation of frozen features. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig

Classifier = Literal["nearest_mean", "knn", "logistic", "svm"]


@dataclass
class FrozenConfig:
    """Classifiers on features that no longer change, read from a table of `avssl-embed` or made here."""

    data: DatasetConfig
    """What is classified."""
    name: Literal["frozen"] = "frozen"
    embeddings: str | None = None
    """A table of `avssl-embed` (.npz or .parquet) that has the files; null: made with `model` into embeddings.npz of
    `out`."""
    feature: str = "video"
    """A column of vectors: `video`, `audio`, a layer such as `video.conv5x`; `both` is video and audio side by side."""
    window_s: float = 2.0
    """Length of the windows that are embedded. Without effect if `embeddings` is given."""
    hop_s: float = 1.0
    """From the start of one window to that of the next. Without effect if `embeddings` is given."""
    classifiers: list[Classifier] = field(default_factory=lambda: ["nearest_mean", "knn", "logistic", "svm"])
    """`nearest_mean`: the class whose mean direction is most similar. `knn`: votes of the `neighbours` most similar
    windows, weighted by exp(cosine / 0.07). `logistic`, `svm`: linear, on standardised features; svm one against
    all others."""
    neighbours: int = 20
    """Of knn."""
    c: float = 1.0
    """Inverse strength of the regularisation of logistic and svm."""
    multilabel: bool = False
    """Items have any number of labels: one classifier a class, measured by mean average precision."""
    shots: list[int] = field(default_factory=list)
    """Few-shot: trained on so many items a class, too, drawn `trials` times."""
    trials: int = 10
    """Draws for each number of shots."""

    def __post_init__(self) -> None:
        if not self.classifiers:
            raise ConfigError("protocol.classifiers is empty; name at least one")
        if self.c <= 0:
            raise ConfigError(f"protocol.c is {self.c}, but must be positive")
        for key in ("neighbours", "trials"):
            if getattr(self, key) < 1:
                raise ConfigError(f"protocol.{key} is {getattr(self, key)}, but must be 1 or more")
        if any(shots < 1 for shots in self.shots):
            raise ConfigError(f"protocol.shots is {self.shots}, but each must be 1 or more")
        if self.multilabel and (self.shots or set(self.classifiers) - {"logistic", "svm"}):
            raise ConfigError("protocol.multilabel works with the classifiers logistic and svm, without shots")
