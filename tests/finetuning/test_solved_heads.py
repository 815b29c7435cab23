"""Solved heads: weights, limits, missing modalities; never worse than the nearest class mean where few files are."""

import numpy as np
import pytest

from avssl.finetuning.features import Windows
from avssl.finetuning.heads import (
    class_means,
    file_means,
    fit_heads,
    logits,
    nearest_mean_scores,
    softmax,
    unit,
    window_weights,
)


def blobs(files=6, classes=4, windows=3, dim=40, noise=1.0, seed=0, modalities=("video", "audio")):
    """Windows of files that scatter about their class, and files about it, too. -> Windows, labels of files."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), files)
    file = np.repeat(np.arange(len(labels)), windows)
    vectors = {}
    for name in modalities:
        centre = random.standard_normal((classes, dim))
        own = centre[labels] + noise * random.standard_normal((len(labels), dim))
        vectors[name] = (own[file] + 0.3 * random.standard_normal((len(file), dim)) + 2.0).astype(np.float32)
    return Windows(vectors, {name: np.ones(len(file), bool) for name in modalities}, file), labels


def test_weights_count_classes_alike_and_files_of_a_class_alike():
    file, labels = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1])
    weights = window_weights(file, labels)
    assert weights.sum() == pytest.approx(3)
    by_file = np.bincount(file, weights)
    assert by_file[0] == pytest.approx(by_file[1]) and by_file[0] + by_file[1] == pytest.approx(by_file[2])


def test_strong_regularisation_answers_as_the_nearest_of_centred_class_means():
    windows, labels = blobs(modalities=("video",))
    scores = logits(fit_heads(windows, labels, 4, 1e-6), windows)
    x, y = unit(windows.vectors["video"]), labels[windows.file]
    means = np.stack([x[y == number].mean(0) for number in range(4)])
    weight = (means - x.mean(0)) / np.linalg.norm(means - x.mean(0))
    expected = (x - x.mean(0)) @ weight.T
    found, wanted = (s - s.mean(1, keepdims=True) for s in (scores, expected))
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("files", [1, 2, 4])
def test_few_files_are_not_worse_than_nearest_means(files):
    right, base = [], []
    for seed in range(12):
        windows, labels = blobs(files=files + 6, noise=1.6, seed=seed)
        first = np.concatenate([np.flatnonzero(labels == c)[:files] for c in range(4)])
        learned, asked = windows.of(first), windows.of(np.setdiff1d(np.arange(len(labels)), first))
        truth = labels[asked.file]
        right.append((logits(fit_heads(learned, labels, 4, 10.0), asked).argmax(1) == truth).mean())
        base.append((nearest_mean_scores(class_means(learned, labels, 4), asked).argmax(1) == truth).mean())
    assert np.mean(right) >= np.mean(base) - 0.01 and np.mean(right) > 0.5


def test_a_missing_modality_adds_nothing():
    windows, labels = blobs()
    windows.has["audio"][windows.file % 2 == 1] = False
    heads = fit_heads(windows, labels, 4, 10.0)
    loud = windows._replace(vectors={**windows.vectors, "audio": windows.vectors["audio"].copy()})
    loud.vectors["audio"][~windows.has["audio"]] = 1e3
    np.testing.assert_allclose(logits(heads, loud), logits(heads, windows))
    again = fit_heads(loud, labels, 4, 10.0)
    np.testing.assert_allclose(again["video"].weight, heads["video"].weight, atol=1e-6)
    assert (logits(heads, windows).argmax(1) == labels[windows.file]).mean() > 0.9


def test_two_classes_and_a_class_that_is_not_there():
    windows, labels = blobs(classes=2)
    scores = logits(fit_heads(windows, labels, 3, 10.0), windows)
    assert scores.shape[1] == 3 and (scores.argmax(1) == labels[windows.file]).mean() > 0.95
    assert (softmax(scores)[:, 2] < 1e-6).all()


def test_files_are_the_mean_of_their_windows():
    windows, _ = blobs(files=1, classes=2)
    values = np.arange(12.0).reshape(6, 2)
    np.testing.assert_allclose(file_means(values, windows, 3)[:2], [[2, 3], [8, 9]])
    assert np.isnan(file_means(values, windows, 3)[2]).all()
