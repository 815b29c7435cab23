"""Retrieval against a sort written out, against sampled chance, and on embeddings whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.errors import UsageError
from avssl.evaluation import retrieval as module
from avssl.evaluation.chance import luck
from avssl.evaluation.retrieval import chance_within, first_ranks, retrieval


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_rank(query, candidates, group, groups):
    """Walk down the sorted list, wrong ones first among equals, until a right one comes."""
    scored = sorted((-float(query @ candidate), groups[j] == group) for j, candidate in enumerate(candidates))
    return 1 + [right for _, right in scored].index(True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 5))
def test_ranks_equal_a_written_out_sort(seed, count, classes):
    random = np.random.default_rng(seed)
    candidates = random.integers(-2, 3, (count, 3)).astype(float)  # small integers: many ties
    groups = random.integers(0, classes, count)
    queries = random.integers(-2, 3, (count, 3)).astype(float)
    query_groups = random.choice(groups, count)
    expected = [slow_rank(q, candidates, g, groups) for q, g in zip(queries, query_groups, strict=True)]
    assert first_ranks(queries, candidates, query_groups, groups).tolist() == expected


def test_tiles_do_not_matter(monkeypatch):
    random = np.random.default_rng(0)
    a, b = random.normal(size=(50, 8)), random.normal(size=(50, 8))
    whole = retrieval(a, b)
    monkeypatch.setattr(module, "TILE", 7)
    assert retrieval(a, b) == whole


def test_perfect_collapsed_and_random_embeddings():
    random = np.random.default_rng(1)
    a = unit(random.normal(size=(400, 16)))
    perfect = retrieval(a, a)
    assert perfect.recall == {1: 1.0, 5: 1.0, 10: 1.0} and perfect.median_rank == 1
    assert perfect.chance_recall[5] == pytest.approx(5 / 400) and perfect.chance_median_rank == 200

    collapsed = retrieval(np.ones((400, 16)), np.ones((400, 16)))
    assert collapsed.recall[10] == 0 and collapsed.median_rank == 400

    by_luck = retrieval(a, unit(random.normal(size=(400, 16))))
    assert by_luck.recall[10] == pytest.approx(by_luck.chance_recall[10], abs=0.03)
    assert by_luck.median_rank == pytest.approx(200, abs=30)


def test_chance_is_the_average_over_random_orders():
    random = np.random.default_rng(2)
    groups = np.array([0] * 5 + [1] * 2 + [2])
    right = np.array([(groups == group).sum() for group in groups])
    counts = np.zeros(len(groups))
    for _ in range(4000):
        order = random.permutation(groups)
        for group in groups:
            place = np.flatnonzero(order == group)[0]  # wrong ones before the first right one
            counts[place:] += 1
    assert chance_within(right, len(groups)).mean(axis=0) == pytest.approx(counts / (4000 * len(groups)), abs=0.01)


def test_chance_of_one_right_candidate():
    assert chance_within(np.ones(1, int), 4)[0] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert chance_within(np.full(1, 4), 4)[0] == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(("trials", "probability"), [(1, 0.02), (16, 0.06), (200, 0.05), (90, 0.5)])
def test_luck_is_the_binomial_quantile(trials, probability):
    reached, hits = 0.0, -1
    while reached < 0.95:
        hits += 1
        reached += math.comb(trials, hits) * probability**hits * (1 - probability) ** (trials - hits)
    assert luck(np.full(trials, probability)) == pytest.approx(hits / trials)


def test_random_embeddings_are_luck_and_real_ones_are_not():
    random = np.random.default_rng(3)
    beyond = 0
    for _ in range(100):
        result = retrieval(random.normal(size=(60, 8)), random.normal(size=(60, 8)), ks=(5,))
        beyond += result.recall[5] > result.luck_recall[5]
    assert beyond <= 12  # 5 expected
    a = random.normal(size=(60, 8))
    result = retrieval(unit(a), unit(a + random.normal(size=a.shape)), ks=(5,))
    assert result.recall[5] > result.luck_recall[5] > result.chance_recall[5]


def test_more_places_than_candidates():
    result = retrieval(np.eye(3), np.eye(3)[::-1], ks=(5,))
    assert result.recall == result.chance_recall == result.luck_recall == {5: 1.0}


def test_asks_for_a_right_candidate():
    with pytest.raises(UsageError, match="no right candidate"):
        first_ranks(np.ones((1, 2)), np.ones((2, 2)), np.array([7]), np.array([0, 1]))
    with pytest.raises(UsageError, match="3 queries, 2 candidates"):
        retrieval(np.ones((3, 2)), np.ones((2, 2)))
