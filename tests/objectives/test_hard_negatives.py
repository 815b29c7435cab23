"""Only the most similar negatives stay: against sorting, and the plain loss as the limit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.objectives.hard_negatives import keep_hardest
from avssl.objectives.xid import softmax_xid


@given(st.integers(0, 10_000), st.floats(0.01, 1), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_keeps_the_highest_share_of_the_visible_negatives(seed, share, candidates):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, candidates, generator=generator)
    positive = torch.randint(candidates, (3,), generator=generator)
    taken_out = torch.rand(3, candidates, generator=generator) < 0.3
    taken_out.scatter_(1, positive[:, None], False)
    x = x.masked_fill(taken_out, -torch.inf)
    for before, after, own in zip(
        x.tolist(), keep_hardest(x, positive, share).tolist(), positive.tolist(), strict=True
    ):
        negatives = sorted((v for j, v in enumerate(before) if j != own and v > -math.inf), reverse=True)
        # Compared in float32, as the shares of whole numbers are counted.
        kept = negatives[: int((torch.tensor(len(negatives)) * share).ceil())]
        assert after[own] == before[own]
        assert sorted((v for j, v in enumerate(after) if j != own and v > -math.inf), reverse=True) == kept
        assert not negatives or kept, "the hardest one always stays"


def test_everyone_is_the_plain_loss_and_ties_stay():
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    positive = torch.arange(5)
    assert torch.equal(softmax_xid(keep_hardest(x, positive, 1.0), positive), softmax_xid(x, positive))
    softmax_xid(keep_hardest(x, positive, 0.25), positive).sum().backward()
    assert ((x.grad != 0).sum(1) == 3).all(), "the own one and two of eight get gradient"
    tied = keep_hardest(torch.tensor([[9.0, 2.0, 2.0, 1.0]]), torch.tensor([0]), 0.3)
    assert tied.tolist() == [[9.0, 2.0, 2.0, -math.inf]]


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_without_negatives_nothing_happens(share):
    x = torch.tensor([[1.0, -torch.inf]])
    assert torch.equal(keep_hardest(x, torch.tensor([0]), share), x)
