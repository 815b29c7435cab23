"""How well clusters are classes: the best one-to-one matching, and measures that need none."""

from __future__ import annotations

import numpy as np


def matching(clusters: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """Which class each cluster stands for, such that most items are right (Hungarian method; Kuhn 1955).

    clusters, labels: [N] ints from 0 on. Clusters beyond the number of classes stand for none and are left out.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return dict(zip(*(side.tolist() for side in linear_sum_assignment(-counts)), strict=True))


def cluster_scores(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """`accuracy` under the best matching, `nmi` (arithmetic mean), `ari`; each is 1 for perfect clusters."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    stands_for = matching(clusters, labels)
    right = np.array([stands_for.get(int(cluster), -1) for cluster in clusters]) == labels
    return {
        "accuracy": float(right.mean()),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
    }


def chance_scores(clusters: np.ndarray, labels: np.ndarray, seed: int, draws: int = 100) -> dict[str, float]:
    """The mean of the scores of clusters of these sizes without any meaning.

    The matching is chosen on the items that it is judged on, so that even those beat one over the number of classes.
    """
    random = np.random.default_rng(seed)
    drawn = [cluster_scores(random.permutation(clusters), labels) for _ in range(draws)]
    return {key: float(np.mean([scores[key] for scores in drawn])) for key in drawn[0]}
