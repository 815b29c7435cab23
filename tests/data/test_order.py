"""The stream of samples is a function of (seed, epoch): disjoint, complete, and the same for any number of ranks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.data import order

sizes = st.integers(1, 60)


@given(st.integers(0, 2**40), st.integers(0, 1000), sizes)
def test_order_is_a_permutation_and_a_function_of_its_arguments(seed, epoch, n):
    first = order.order(seed, epoch, n).copy()
    order.order.cache_clear()
    assert sorted(first) == list(range(n))
    assert np.array_equal(first, order.order(seed, epoch, n))


def test_seed_and_epoch_change_the_order():
    orders = {tuple(order.order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(rows=sizes, draws=st.integers(1, 4), epoch=st.integers(0, 5), shuffle=st.booleans())
def test_an_epoch_holds_every_row_draws_times(rows, draws, epoch, shuffle):
    length = rows * draws
    found = order.entries(range(epoch * length, (epoch + 1) * length), rows=rows, draws=draws, seed=3, shuffle=shuffle)
    assert sorted(found) == [(epoch, row, draw) for row in range(rows) for draw in range(draws)]


@given(
    rows=sizes,
    options=st.sampled_from([{}, {"draws": 3}, {"replacement": True}]),
    start=st.integers(0, 10**9),
    count=st.integers(0, 40),
)
def test_any_position_is_reached_directly(rows, options, start, count):
    whole = order.entries(range(start, start + count), rows=rows, **options)
    late = start + count // 2
    order.order.cache_clear()
    order.drawn.cache_clear()
    assert order.entries(range(late, start + count), rows=rows, **options) == whole[count // 2 :]


@given(rows=sizes, seed=st.integers(0, 9))
def test_with_replacement_no_sample_comes_twice_in_an_epoch(rows, seed):
    """A row may, but with another draw number, hence another moment and augmentation."""
    found = order.entries(range(2 * rows), rows=rows, seed=seed, replacement=True)
    assert len(set(found)) == 2 * rows
    assert [entry.epoch for entry in found] == [0] * rows + [1] * rows
    assert {entry.row for entry in found} <= set(range(rows))
    if rows > 9:
        assert [entry.row for entry in found[:rows]] != [entry.row for entry in found[rows:]]


def test_with_replacement_rows_are_drawn_alike():
    """Chi square over 40 rows: the mean is 39, its deviation 8.8; and independently of the sample before."""
    rows = np.array([entry.row for entry in order.entries(range(40_000), rows=40, seed=1, replacement=True)])
    assert ((np.bincount(rows, minlength=40) - 1000) ** 2 / 1000).sum() < 39 + 4 * 8.8
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 4 / 200
    assert len(set(rows[:40].tolist())) < 40


def staleness_of_the_drawn(rows: list[int], n: int) -> list[float]:
    """For each sample the share of rows that were not visited for longer than the drawn one (1: it is the stalest)."""
    seen = np.full(n, -1)
    found = []
    for time, row in enumerate(rows):
        found.append(float((seen > seen[row]).mean()))
        seen[row] = time
    return found


@pytest.mark.parametrize(("replacement", "late"), [(False, (0.9, 1.0)), (True, (0.4, 0.6))])
def test_replacement_keeps_the_banks_evenly_fresh(replacement, late):
    """Why it is there: near the end of a pass without it, the rows to come are the stalest, so that a target's age
    alone tells which it is (methods B.3)."""
    n = 200
    rows = [entry.row for entry in order.entries(range(10 * n), rows=n, seed=2, replacement=replacement)]
    stale = np.reshape(staleness_of_the_drawn(rows, n), (10, n))[2:]
    low, high = late
    assert low < stale[:, -n // 10 :].mean() <= high
    assert 0.4 < stale[:, : n // 10].mean() < 0.6


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_same_global_batches(world_size):
    steps = 12
    for batch in itertools.islice(order.batches(5, 8), steps):
        slices = [order.rank_slice(batch, rank, world_size) for rank in range(world_size)]
        assert [number for part in slices for number in part] == list(batch)
        assert {len(part) for part in slices} == {8 // world_size}


@given(position=st.integers(0, 100), size=st.integers(1, 20), extra=st.integers(0, 90), world_size=st.integers(1, 5))
def test_batches_up_to_an_end_are_complete_and_disjoint(position, size, extra, world_size):
    found = list(order.batches(position, size, end=position + extra))
    assert [number for batch in found for number in batch] == list(range(position, position + extra))
    assert all(len(batch) == size for batch in found[:-1])
    for batch in found:
        lengths = [len(order.rank_slice(batch, rank, world_size)) for rank in range(world_size)]
        assert sum(lengths) == len(batch) and max(lengths) - min(lengths) <= 1


def slow_buffered(n: int, buffer: int, picks: np.ndarray) -> list[int]:
    """What a shuffle buffer does, word for word: fill it, give out a random one, fill its place with the next."""
    arriving = iter(range(n))
    held = list(itertools.islice(arriving, buffer))
    left = []
    for pick in picks:
        left.append(held[pick])
        following = next(arriving, None)
        if following is None:
            held[pick] = held[-1]
            held.pop()
        else:
            held[pick] = following
    return left


@given(n=st.integers(0, 80), buffer=st.integers(1, 30), epoch=st.integers(0, 3))
@settings(max_examples=60)
def test_a_shuffle_buffer_never_gives_out_what_has_not_arrived(n, buffer, epoch):
    left = order.buffered(n, buffer, seed=1, epoch=epoch, part=0)
    assert sorted(left) == list(range(n))
    for i, value in enumerate(left):
        assert value < i + buffer  # before the i-th leaves, at most i + buffer have entered
    held = [min(buffer, n - i) for i in range(n)]
    sequence = np.random.SeedSequence((1, epoch, 0), spawn_key=(order._BUFFER,))
    picks = (np.random.Generator(np.random.Philox(sequence)).random(n) * held).astype(int)
    assert left.tolist() == slow_buffered(n, buffer, picks)
