"""What a classifier says of files whose class is known, in numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avssl.finetuning.split import Labelled


class Judged(NamedTuple):
    """Files by number and the probabilities [N, C] that a classifier which has not learned from them gives."""

    files: np.ndarray
    chances: np.ndarray

    def right(self, labelled: Labelled) -> np.ndarray:
        """[N] bool."""
        return self.chances.argmax(1) == labelled.labels[self.files]


def metrics_of(
    judged: Judged, labelled: Labelled, train: np.ndarray, baselines: dict[str, Judged]
) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of right answers, and what always answering the most frequent class reaches.

    `balanced_accuracy` is the mean over classes; `NAME_accuracy` that of each baseline on the same files.
    """
    truth = labelled.labels[judged.files]
    right = judged.right(labelled)
    frequent = np.bincount(labelled.labels[train]).argmax()
    metrics = {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[truth == number].mean() for number in np.unique(truth)])),
    }
    for name, other in baselines.items():
        metrics[f"{name}_accuracy"] = float(other.right(labelled).mean())
    return metrics, {"accuracy": float((truth == frequent).mean()), "balanced_accuracy": 1 / len(np.unique(truth))}


def confusion(judged: Judged, labelled: Labelled) -> np.ndarray:
    """[C, C] counts: truth by answer."""
    counts = np.zeros((len(labelled.classes),) * 2, int)
    np.add.at(counts, (labelled.labels[judged.files], judged.chances.argmax(1)), 1)
    return counts
