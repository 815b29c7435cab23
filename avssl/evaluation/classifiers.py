"""Classifiers on frozen features: rows of numbers in, a score for every class out."""

from __future__ import annotations

import numpy as np

KNN_TEMPERATURE = 0.07
_ITERATIONS = 10_000


def class_scores(
    kind: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, c: float = 1.0, neighbours: int = 20
) -> np.ndarray:
    """Scores [M, C] of the rows `test` [M, D] for the classes 0..C-1 of `labels` [N]; the highest is the answer.

    kind: see `FrozenConfig.classifiers`. train: [N, D]. labels: [N] ints, of which each of 0..C-1 occurs, or [N, C]
    bool for items with any number of labels (logistic and svm).
    """
    if kind == "nearest_mean":
        return _unit(test) @ _class_means(_unit(train), labels).T
    if kind == "knn":
        return _votes(_unit(train), labels, _unit(test), neighbours)
    return _linear(kind, train, labels, test, c)


def _class_means(train: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[C, D] unit vectors, summed in float64, so that the order of the rows does not matter."""
    sums = np.zeros((labels.max() + 1, train.shape[1]))
    np.add.at(sums, labels, train)
    return _unit(sums)


def _votes(train: np.ndarray, labels: np.ndarray, test: np.ndarray, neighbours: int) -> np.ndarray:
    scores = np.zeros((len(test), labels.max() + 1))
    for row, query in enumerate(test):
        similar = train @ query
        nearest = np.argsort(-similar, kind="stable")[:neighbours]
        np.add.at(scores[row], labels[nearest], np.exp((similar[nearest] - similar[nearest[0]]) / KNN_TEMPERATURE))
    return scores


def _linear(kind: str, train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    model = (
        LogisticRegression(C=c, max_iter=_ITERATIONS)
        if kind == "logistic"
        else LinearSVC(C=c, random_state=0, max_iter=_ITERATIONS)
    )
    if labels.ndim == 2:
        model = OneVsRestClassifier(model)
    fitted = make_pipeline(StandardScaler(), model).fit(train, labels)
    scores = fitted.decision_function(test)
    return np.stack([-scores, scores], 1) if scores.ndim == 1 else scores


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
