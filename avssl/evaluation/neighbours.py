"""Classes by similarity alone: nearest neighbours and nearest class mean, never looking at clips of the same source.

Clips cut from one video look alike whatever the model has learned, so a clip is only ever compared with clips of other
sources. A clip whose class no other source has cannot be judged and is not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avssl.errors import UsageError
from avssl.evaluation.chance import luck


@dataclass(frozen=True)
class Accuracy:
    """Shares are 0..1, over `counted` clips."""

    accuracy: float
    chance: float  # expected accuracy of taking the class of a random clip of another source
    luck: float  # what such takers reach or stay below in 95 % of cases, the queries taken as independent
    majority: float  # accuracy of always answering the counted clips' most frequent class
    counted: int
    classes: int  # among the counted clips


@dataclass(frozen=True)
class Labelled:
    """Embeddings with what is known about them; a similarity is a dot product (cosine, for unit rows)."""

    embeddings: np.ndarray  # [N, D] float
    labels: np.ndarray  # [N], any comparable values
    sources: np.ndarray  # [N], the video each was cut from


Judge = Callable[[np.ndarray, Labelled], object]  # (query embedding [D], clips of other sources) -> predicted class


def knn_accuracy(queries: Labelled, reference: Labelled | None = None, k: int = 5) -> Accuracy:
    """How often the k most similar clips of other sources vote for the query's class.

    Each has one vote; a tie goes to the class of the most similar voter. Without `reference` the queries are each
    other's.
    """

    def vote(query: np.ndarray, others: Labelled) -> object:
        nearest = others.labels[np.argsort(-(others.embeddings @ query), kind="stable")[:k]]
        classes, first, votes = np.unique(nearest, return_index=True, return_counts=True)
        return classes[np.lexsort((first, -votes))[0]]

    return _accuracy(queries, reference or queries, vote)


def class_mean_accuracy(queries: Labelled, reference: Labelled | None = None) -> Accuracy:
    """How often the query is most similar to the mean direction of its class over the clips of other sources."""

    def nearest_mean(query: np.ndarray, others: Labelled) -> object:
        classes, index = np.unique(others.labels, return_inverse=True)
        sums = np.zeros((len(classes), len(query)))
        np.add.at(sums, index, others.embeddings)
        lengths = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)
        return classes[np.argmax((sums @ query) / lengths)]

    return _accuracy(queries, reference or queries, nearest_mean)


def _accuracy(queries: Labelled, reference: Labelled, judge: Judge) -> Accuracy:
    right, by_chance, labels = [], [], []
    for query, label, source in zip(queries.embeddings, queries.labels, queries.sources, strict=True):
        other = reference.sources != source
        same_class = reference.labels[other] == label
        if not same_class.any():
            continue
        others = Labelled(reference.embeddings[other], reference.labels[other], reference.sources[other])
        right.append(judge(query, others) == label)
        by_chance.append(same_class.mean())
        labels.append(label)
    if not right:
        raise UsageError("nearest neighbours: no class has clips of two sources, so no clip can be judged")
    counts = np.unique(np.asarray(labels), return_counts=True)[1]
    return Accuracy(
        accuracy=float(np.mean(right)),
        chance=float(np.mean(by_chance)),
        luck=luck(np.array(by_chance)),
        majority=float(counts.max() / counts.sum()),
        counted=len(right),
        classes=len(counts),
    )
