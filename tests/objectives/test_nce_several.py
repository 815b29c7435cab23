"""NCE with several positives against its definition in probabilities."""

import math

import pytest
import torch

from avssl.objectives.nce import nce_several, nce_xid


def slow_nce(row, positive, z):
    """methods B.2: positives are averaged, negatives summed; -inf is nobody."""
    pos = [x for x, p in zip(row, positive, strict=True) if p and x > -math.inf]
    neg = [x for x, p in zip(row, positive, strict=True) if not p and x > -math.inf]
    noise = max(1, len(neg)) * z
    loss = sum(-math.log(math.exp(x) / (math.exp(x) + noise)) for x in pos) / max(1, len(pos))
    return loss + sum(-math.log(noise / (math.exp(x) + noise)) for x in neg)


def test_equals_the_definition_and_its_gradient():
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(6, 9, generator=generator)).requires_grad_()
    positives = torch.rand(6, 9, generator=generator) < 0.4
    taken_out = torch.zeros(6, 9, dtype=torch.bool)
    taken_out[0, :3] = taken_out[1, 4] = True
    positives[2], positives[3] = False, True
    z = torch.tensor(1.7)
    found = nce_several(x.masked_fill(taken_out, -torch.inf), positives, z)
    rows = x.detach().double().masked_fill(taken_out, -torch.inf).tolist()
    expected = [slow_nce(row, p, 1.7) for row, p in zip(rows, positives.tolist(), strict=True)]
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)

    found.sum().backward()
    visible = ~taken_out
    pos, neg = positives & visible, ~positives & visible
    noise = neg.sum(1, keepdim=True).clamp(min=1) * 1.7
    p = torch.sigmoid(x.detach().double() - noise.log())
    gradient = torch.where(pos, (p - 1) / pos.sum(1, keepdim=True).clamp(min=1), torch.where(neg, p, 0.0))
    torch.testing.assert_close(x.grad.double(), gradient, rtol=1e-5, atol=1e-6)


def test_one_positive_is_the_plain_loss():
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    x[1, 2] = -torch.inf
    positive = torch.tensor([0, 3, 7, 2, 2])
    mask = torch.nn.functional.one_hot(positive, 8).bool()
    z = torch.tensor(2.2)
    torch.testing.assert_close(nce_several(x, mask, z), nce_xid(x, positive, z))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_stays_finite_at_extreme_scores(share):
    x = torch.tensor([[900.0, -900.0, -torch.inf, 900.0]], requires_grad=True)
    positives = torch.arange(4)[None] < 4 * share
    loss = nce_several(x, positives, torch.tensor(2.0))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all()


def test_what_is_not_a_number_shows_in_the_loss():
    x = torch.zeros(3, 4)
    x[0, 0] = x[1, 3] = math.nan
    positives = torch.arange(4).expand(3, 4) < 2
    assert nce_several(x, positives, torch.tensor(2.0)).isnan().tolist() == [True, True, False]
    assert nce_xid(x, torch.zeros(3, dtype=torch.int64), torch.tensor(2.0)).isnan().tolist() == [True, True, False]
