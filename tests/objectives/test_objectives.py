"""Losses and the bank against slow float64 references, published start values and their symmetries."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tools import random_units

from avssl.objectives.bank import MemoryBank, draw_negatives, last_of_each
from avssl.objectives.nce import nce_xid, partition_sums
from avssl.objectives.scores import scores, unit
from avssl.objectives.xid import softmax_xid


def slow_softmax(x, positive):
    """One query at a time, by the definition."""
    return [-math.log(math.exp(row[p]) / sum(math.exp(v) for v in row)) for row, p in zip(x, positive, strict=True)]


def slow_nce(x, positive, z):
    """One query at a time: the probabilities of methods B.2, not their logarithms."""
    losses = []
    for row, p in zip(x, positive, strict=True):
        noise = sum(v > -math.inf for j, v in enumerate(row) if j != p) * z
        loss = -math.log(math.exp(row[p]) / (math.exp(row[p]) + noise))
        for j, v in enumerate(row):
            if j != p and v > -math.inf:
                loss -= math.log(noise / (math.exp(v) + noise))
        losses.append(loss)
    return losses


@pytest.mark.parametrize("masked", [False, True])
def test_forward_equals_the_definition(masked):
    x = 5 * torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    positive = torch.tensor([0, 3, 8, 1, 0, 5])
    if masked:
        x[0, 4] = x[2, 2] = x[2, 3] = -torch.inf
    z = 1.7
    torch.testing.assert_close(
        softmax_xid(x, positive), torch.tensor(slow_softmax(x.tolist(), positive.tolist())), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(
        nce_xid(x, positive, torch.tensor(z)),
        torch.tensor(slow_nce(x.tolist(), positive.tolist(), z)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("loss", ["softmax", "nce"])
@pytest.mark.parametrize("shared", [True, False], ids=["in batch", "own candidates"])
def test_gradients_equal_closed_forms_in_float64(loss, shared):
    """d softmax / ds = sum_j t_j (P_j - [j = i]) / tau; NCE: sigmoid form. Computed in float64 without autograd."""
    tau, z = 0.07, 2.2
    queries = random_units(5, 16, seed=2).requires_grad_()
    candidates = random_units(*((7, 16) if shared else (5, 7, 16)), seed=3)
    positive = torch.tensor([0, 1, 2, 3, 6])
    x = scores(queries, candidates, tau)
    (softmax_xid(x, positive) if loss == "softmax" else nce_xid(x, positive, torch.tensor(z))).sum().backward()

    q, t = queries.detach().double(), candidates.double().expand(5, 7, 16)
    x64 = (q[:, None] * t).sum(-1) / tau
    own = torch.nn.functional.one_hot(positive, 7).double()
    p = x64.softmax(1) if loss == "softmax" else torch.sigmoid(x64 - math.log(6 * z))
    expected = ((p - own)[:, :, None] * t).sum(1) / tau
    torch.testing.assert_close(queries.grad.double(), expected, rtol=2e-5, atol=2e-5)


def test_start_values_of_random_unit_vectors():
    """Softmax xID starts at 7.72 a direction, NCE at 8.72, and Z is about 2.2 (D 128, tau 0.07, K 1024)."""
    queries, bank = random_units(64, 128, seed=4), random_units(64, 1025, 128, seed=5)
    x = scores(queries, bank, 0.07)
    positive = torch.zeros(64, dtype=torch.int64)
    total, number = partition_sums(x, positive)
    z = total / number
    assert number == 64 * 1024
    assert abs(z - 2.21) < 0.03
    spread = 3 / (math.sqrt(128) * 0.07 * math.sqrt(64))  # three standard errors of the positive's own score
    assert abs(softmax_xid(x, positive).mean() - 7.72) < spread
    assert abs(nce_xid(x, positive, z).mean() - 8.72) < spread


def test_nce_stays_finite_where_probabilities_do_not():
    x = torch.tensor([[300.0, -300.0, 300.0], [-300.0, 300.0, -torch.inf]], requires_grad=True)
    loss = nce_xid(x, torch.tensor([0, 0]), torch.tensor(2.0))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all()
    alone = nce_xid(torch.tensor([[1.0, -torch.inf]]), torch.tensor([0]), torch.tensor(2.0))
    assert torch.isfinite(alone).all()


def test_half_precision_embeddings_are_scored_in_float32():
    queries, targets = random_units(4, 32, seed=6), random_units(9, 32, seed=7)
    x = scores(unit(queries.bfloat16()), unit(targets.bfloat16()), 0.07)
    assert x.dtype == torch.float32
    assert torch.isfinite(softmax_xid(x, torch.arange(4))).all()


def test_swapping_the_modalities_swaps_the_directions():
    video, audio = random_units(6, 16, seed=8), random_units(6, 16, seed=9)
    positive = torch.arange(6)
    v2a, a2v = (softmax_xid(scores(q, t, 0.1), positive) for q, t in ((video, audio), (audio, video)))
    swapped = [softmax_xid(scores(q, t, 0.1), positive) for q, t in ((audio, video), (video, audio))]
    assert torch.equal(v2a, swapped[1]) and torch.equal(a2v, swapped[0])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_last_of_each_is_the_last(rows):
    distinct, last = last_of_each(torch.tensor(rows))
    assert dict(zip(distinct.tolist(), last.tolist(), strict=True)) == {row: i for i, row in enumerate(rows)}


def test_bank_update_equals_a_loop_and_the_last_duplicate_wins():
    bank = MemoryBank(8, 4, momentum=0.3, seed=1)
    before = bank.memory.clone()
    rows, embeddings = torch.tensor([3, 1, 3, 7, 3]), random_units(5, 4, seed=2)
    bank.update(rows, embeddings)
    expected = before.double()
    for row, i in {3: 4, 1: 1, 7: 3}.items():
        moved = 0.3 * expected[row] + 0.7 * embeddings[i].double()
        expected[row] = moved / moved.norm()
    torch.testing.assert_close(bank.memory.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(bank.memory[[0, 2, 4, 5, 6]], before[[0, 2, 4, 5, 6]])


def test_bank_starts_from_its_seed_with_unit_vectors():
    assert torch.equal(MemoryBank(9, 5, seed=3).memory, MemoryBank(9, 5, seed=3).memory)
    assert not torch.equal(MemoryBank(9, 5, seed=3).memory, MemoryBank(9, 5, seed=4).memory)
    torch.testing.assert_close(MemoryBank(9, 5).memory.norm(dim=1), torch.ones(9))


def test_negatives_are_uniform_over_the_other_rows():
    rows = torch.tensor([0, 4, 9])
    drawn = draw_negatives(rows, 10, 90_000, torch.Generator().manual_seed(0))
    for row, draws in zip(rows.tolist(), drawn, strict=True):
        counts = torch.bincount(draws, minlength=10)
        assert counts[row] == 0
        others = counts[torch.arange(10) != row].double()
        assert ((others - 10_000).abs() < 5 * math.sqrt(10_000)).all()
