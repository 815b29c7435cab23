"""Average precision against a slow reference and by hand."""

import pytest
import torch

from avssl.evaluation.average_precision import average_precision


def slow(scores, targets):
    """The definition: sum over thresholds of (recall gained) * precision."""
    value, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = float(targets[chosen].sum())
        value += (hits / float(targets.sum()) - recall) * hits / int(chosen.sum())
        recall = hits / float(targets.sum())
    return value


def test_equals_the_definition_with_and_without_ties():
    generator = torch.Generator().manual_seed(0)
    for rounded in (False, True):
        scores = torch.rand(40, 7, generator=generator)
        scores = (scores * 5).round() / 5 if rounded else scores
        targets = (torch.rand(40, 7, generator=generator) < 0.3).float()
        values = average_precision(scores, targets)
        for k in range(7):
            assert float(values[k]) == pytest.approx(slow(scores[:, k], targets[:, k]), abs=1e-12)


def test_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    assert average_precision(scores, torch.tensor([[1.0], [0], [1], [0]])).item() == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, torch.ones(4, 1)).item() == 1
    assert average_precision(torch.zeros(4, 1), torch.tensor([[1.0], [0], [0], [0]])).item() == 0.25  # all tied
    assert average_precision(scores, torch.zeros(4, 1)).isnan().all()  # no clip of the class
