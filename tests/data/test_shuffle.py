"""Permutations that are computed: they are permutations, look random, and serve the stream as the tables do."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from avssl.data import order
from avssl.data.shuffle import Shuffle, number_below


def shuffled(n, seed=0):
    shuffle = Shuffle(n, np.random.SeedSequence(seed))
    return [shuffle[position] for position in range(n)]


@given(st.integers(1, 400), st.integers(0, 2**40))
@settings(max_examples=60)
def test_it_is_a_permutation_and_a_function_of_the_seed(n, seed):
    assert sorted(shuffled(n, seed)) == list(range(n))
    assert shuffled(n, seed) == shuffled(n, seed)


def test_seeds_give_others():
    assert len({tuple(shuffled(50, seed)) for seed in range(40)}) == 40


def test_every_entry_comes_at_every_position_alike():
    n, seeds = 20, 4000
    counts = np.zeros((n, n))
    for seed in range(seeds):
        counts[np.arange(n), shuffled(n, seed)] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    steps = np.array([np.diff(shuffled(n, seed)) % n for seed in range(seeds)])  # neighbours tell nothing of each other
    assert stats.chisquare(np.bincount(steps.ravel(), minlength=n)[1:]).pvalue > 1e-3


def test_neighbours_of_a_large_one_are_uncorrelated():
    n = 100_000_007
    shuffle = Shuffle(n, np.random.SeedSequence(3))
    found = np.array([shuffle[position] for position in range(5000)]) / n
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05
    for wrong in (-1, n):
        with pytest.raises(IndexError):
            shuffle[wrong]


def test_numbers_below_are_uniform():
    found = [number_below(7, np.random.SeedSequence(seed)) for seed in range(7000)]
    assert stats.chisquare(np.bincount(found, minlength=7)).pvalue > 1e-3


@pytest.mark.parametrize("options", [{}, {"draws": 3}, {"replacement": True}])
def test_the_stream_of_a_large_set_keeps_its_promises(options, monkeypatch):
    """As with tables: whole epochs, another order in each, any position at once."""
    monkeypatch.setattr(order, "TABLE_ENTRIES", 10)
    rows, draws = 23, options.get("draws", 1)
    length = rows * draws
    found = order.entries(range(3 * length), rows=rows, seed=5, **options)
    assert found[30:] == order.entries(range(30, 3 * length), rows=rows, seed=5, **options)
    epochs = [found[start : start + length] for start in range(0, 3 * length, length)]
    for one, other in itertools.combinations(epochs, 2):
        assert [entry.row for entry in one] != [entry.row for entry in other]
    for number, epoch in enumerate(epochs):
        assert len(set(epoch)) == length and {entry.epoch for entry in epoch} == {number}
        if not options.get("replacement"):
            assert sorted(epoch) == [(number, row, draw) for row in range(rows) for draw in range(draws)]


def test_an_order_of_a_hundred_million_needs_no_table():
    order.order.cache_clear()
    found = order.entries(range(10**8 - 4, 10**8 + 4), rows=10**8, seed=1)
    assert [entry.epoch for entry in found] == [0] * 4 + [1] * 4
    assert order.order.cache_info().currsize == 0
