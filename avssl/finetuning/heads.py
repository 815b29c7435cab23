"""Heads on frozen features, solved at once: regularised logistic regression on what all modalities give together.

The stronger the regularisation, the more a class's weights are the difference of its mean from that of all classes:
its limit answers as the nearest class mean does. Files, not windows, are what is counted against it, so that few files
are not over-fitted and many are made use of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avssl.finetuning.features import Windows

_ITERATIONS = 1000
_NEVER = -30.0  # logit of a class that was not there to learn


class Scaling(NamedTuple):
    """Of a modality: x -> (x / |x| - mean) / scale; windows that lack it become zeros."""

    mean: np.ndarray
    scale: float


class Head(NamedTuple):
    """Logits of x / |x| [D]: weight [C, D] times it, plus bias [C]."""

    weight: np.ndarray
    bias: np.ndarray


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of unit length, float64."""
    rows = vectors.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def window_weights(file: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N] weights of windows that add up to the number of files: each class counts the same, and each file of it.

    file: [N] numbers into `labels`.
    """
    counts = np.bincount(file, minlength=len(labels))
    used = np.flatnonzero(counts)
    files_of_class = np.bincount(labels[used])
    weights = 1.0 / (counts[file] * files_of_class[labels[file]])
    return weights * (len(used) / weights.sum())


def fit_heads(windows: Windows, labels: np.ndarray, classes: int, c: float) -> dict[str, Head]:
    """One head a modality, whose logits are added. labels: of files. c: inverse strength of the regularisation of
    features whose distance from their mean is 1 on average. A class that no file has is never answered."""
    from sklearn.linear_model import LogisticRegression

    weights = window_weights(windows.file, labels)
    scalings = {name: _scaling(windows, name, weights) for name in windows.vectors}
    x = np.concatenate([_scaled(windows, name, scaling) for name, scaling in scalings.items()], 1)
    y = labels[windows.file]
    seen = np.unique(y)
    # Features are centred and classes weigh alike, so an intercept would only add what a missing modality lacks.
    model = LogisticRegression(C=c, fit_intercept=False, max_iter=_ITERATIONS).fit(x, y, sample_weight=weights)
    coefficients = model.coef_ if len(seen) > 2 else np.concatenate([-model.coef_, model.coef_]) / 2
    weight = np.zeros((classes, x.shape[1]))
    weight[seen] = coefficients
    bias = np.full(classes, _NEVER)
    bias[seen] = 0.0
    heads, start = {}, 0
    for name, scaling in scalings.items():
        own = weight[:, start : start + len(scaling.mean)] / scaling.scale
        heads[name] = Head(own, bias - own @ scaling.mean)
        start += len(scaling.mean)
    return heads


def logits(heads: dict[str, Head], windows: Windows) -> np.ndarray:
    """[N, C], the sum over the modalities that a window has."""
    total = np.zeros((len(windows.file), len(next(iter(heads.values())).bias)))
    for name, head in heads.items():
        own = unit(windows.vectors[name]) @ head.weight.T + head.bias
        total += np.where(windows.has[name][:, None], own, 0.0)
    return total


def class_means(windows: Windows, labels: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """The mean direction of each class [C, D] by modality, files counting alike; zeros for a class without any."""
    means = {}
    weights = window_weights(windows.file, labels)
    for name, vectors in windows.vectors.items():
        sums = np.zeros((classes, vectors.shape[1]))
        np.add.at(sums, labels[windows.file], unit(vectors) * (weights * windows.has[name])[:, None])
        means[name] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return means


def nearest_mean_scores(means: dict[str, np.ndarray], windows: Windows) -> np.ndarray:
    """Cosines [N, C] to the class means, the sum over the modalities that a window has: the baseline of every head."""
    parts = [
        np.where(windows.has[name][:, None], unit(windows.vectors[name]) @ mean.T, 0.0) for name, mean in means.items()
    ]
    return np.sum(parts, 0)


def file_means(values: np.ndarray, windows: Windows, files: int) -> np.ndarray:
    """[files, C] the mean over each file's windows; NaN for files without any."""
    sums = np.zeros((files, values.shape[1]))
    np.add.at(sums, windows.file, values)
    counts = np.bincount(windows.file, minlength=files)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _scaling(windows: Windows, name: str, weights: np.ndarray) -> Scaling:
    present = weights * windows.has[name]
    x = unit(windows.vectors[name])
    mean = present @ x / max(present.sum(), 1e-12)
    spread = present @ ((x - mean) ** 2).sum(1) / max(present.sum(), 1e-12)
    return Scaling(mean, float(np.sqrt(max(spread, 1e-12))))


def _scaled(windows: Windows, name: str, scaling: Scaling) -> np.ndarray:
    x = (unit(windows.vectors[name]) - scaling.mean) / scaling.scale
    return np.where(windows.has[name][:, None], x, 0.0)
