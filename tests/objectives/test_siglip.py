"""The sigmoid loss against its sum over pairs."""

import math

import pytest
import torch
from objective_tools import random_units

from avssl.objectives.candidates import Columns
from avssl.objectives.siglip import siglip


@pytest.mark.parametrize("layout", ["shared", "own"])
def test_equals_the_sum_over_pairs(layout):
    queries, targets = random_units(4, 6, seed=1), random_units(*((7, 6) if layout == "shared" else (4, 7, 6)), seed=2)
    rows = torch.tensor([0, 1, 2, 3, 1, 0, 5])
    columns = Columns(torch.arange(4), rows, rows[:4], torch.arange(7) == 6)
    scale, bias = torch.tensor(10.0), torch.tensor(-3.0)
    found = siglip(queries, targets, columns, scale=scale, bias=bias)
    hidden = columns.hidden(0, 7)
    for i in range(4):
        candidates = targets if layout == "shared" else targets[i]
        x = [10 * float(queries[i].double() @ t) - 3 for t in candidates.double()]
        others = [x[j] for j in range(7) if j != i and not hidden[i, j]]
        expected = math.log1p(math.exp(-x[i])) + sum(math.log1p(math.exp(v)) for v in others)
        assert found.loss[i].item() == pytest.approx(expected, rel=1e-5)
        assert found.own[i].item() == pytest.approx(x[i], abs=1e-5)
        assert found.best_other[i].item() == pytest.approx(max(others), abs=1e-5)


def test_gradients_reach_embeddings_scale_and_bias():
    queries, targets = (random_units(5, 4, seed=s, dtype=torch.float64).requires_grad_() for s in (1, 2))
    scale, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (4.0, -2.0))
    columns = Columns(torch.arange(5), absent=torch.arange(5) == 3)

    def loss(queries, targets, scale, bias):
        return siglip(queries, targets, columns, scale=scale, bias=bias).loss

    assert torch.autograd.gradcheck(loss, (queries, targets, scale, bias))


def test_alone_and_extreme():
    one = random_units(1, 4).requires_grad_()
    scale, bias = torch.tensor(1e4, requires_grad=True), torch.tensor(-1e4)
    found = siglip(one, -one.detach(), Columns(torch.zeros(1, dtype=torch.int64)), scale=scale, bias=bias)
    found.loss.sum().backward()
    assert torch.isfinite(found.loss).all() and torch.isfinite(one.grad).all() and torch.isfinite(scale.grad)
    assert found.best_other.tolist() == [-math.inf]
