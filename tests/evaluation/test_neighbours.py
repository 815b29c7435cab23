"""Nearest neighbours against a loop written out; clips of the same source never help."""

from collections import Counter

import numpy as np
import pytest

from avssl.errors import UsageError
from avssl.evaluation.neighbours import Labelled, class_mean_accuracy, knn_accuracy


def world(seed, clips=60, classes=4, sources=15, spread=1.0):
    random = np.random.default_rng(seed)
    source = random.integers(0, sources, clips)
    label = source % classes  # a source has one class
    centres = random.normal(size=(classes, 8))
    rows = centres[label] + spread * random.normal(size=(clips, 8))
    return Labelled(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.array(list("abcd"))[label], source)


def slow_knn(data, k):
    hits = []
    for i in range(len(data.labels)):
        others = [j for j in range(len(data.labels)) if data.sources[j] != data.sources[i]]
        others.sort(key=lambda j: -float(data.embeddings[i] @ data.embeddings[j]))
        votes = Counter(data.labels[j] for j in others[:k])
        best = max(votes.values())
        winner = next(data.labels[j] for j in others[:k] if votes[data.labels[j]] == best)
        hits.append(winner == data.labels[i])
    return np.mean(hits)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_knn_equals_a_loop_written_out(k):
    for seed in range(5):
        data = world(seed)
        assert knn_accuracy(data, k=k).accuracy == pytest.approx(slow_knn(data, k))


def test_class_mean_equals_a_loop_written_out():
    data = world(3)
    hits = []
    for i in range(len(data.labels)):
        scores = {}
        for label in np.unique(data.labels):
            members = (data.labels == label) & (data.sources != data.sources[i])
            mean = data.embeddings[members].mean(axis=0)
            scores[label] = mean @ data.embeddings[i] / np.linalg.norm(mean)
        hits.append(max(scores, key=scores.get) == data.labels[i])
    assert class_mean_accuracy(data).accuracy == pytest.approx(np.mean(hits))


def test_clips_of_the_same_source_do_not_help():
    """Every clip equals its source's others exactly and nothing else: only a leak could be right."""
    sources = np.repeat(np.arange(8), 5)
    embeddings = np.eye(8)[sources]
    labels = np.where(sources < 4, "near", "far")
    accuracy = knn_accuracy(Labelled(embeddings, labels, sources), k=1).accuracy
    assert accuracy < 0.6  # all others are equally dissimilar: the first of them decides
    same_source = knn_accuracy(Labelled(embeddings, labels, np.arange(40)), k=1).accuracy
    assert same_source == 1.0  # the same clips, were each its own source


def test_chance_majority_and_what_is_counted():
    labels = np.array(["a", "a", "a", "b", "b", "only"])
    data = Labelled(np.eye(6), labels, np.arange(6))
    result = knn_accuracy(data, k=1)
    assert (result.counted, result.classes) == (5, 2)  # "only" has no other source
    assert result.chance == pytest.approx((3 * 2 / 5 + 2 * 1 / 5) / 5)
    assert result.majority == pytest.approx(3 / 5)
    assert result.chance < result.luck < 1


def test_separate_reference():
    queries = Labelled(np.eye(2), np.array(["x", "y"]), np.array(["q0", "q1"]))
    reference = Labelled(np.eye(2)[::-1], np.array(["y", "x"]), np.array(["r0", "r1"]))
    assert knn_accuracy(queries, reference, k=1).accuracy == 1.0
    assert class_mean_accuracy(queries, reference).accuracy == 1.0


def test_says_when_nothing_can_be_judged():
    with pytest.raises(UsageError, match="no class has clips of two sources"):
        knn_accuracy(Labelled(np.eye(3), np.array(["a", "b", "c"]), np.arange(3)))
