"""Weights of pairs and their statistics: published numbers, limits, chunks and ranks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tools import random_units

from avssl.objectives.weights import follow, mean_std, pair_scores, pair_weights, score_sums


@pytest.mark.parametrize(
    ("minimum", "shift", "sharpness", "expected"),
    [
        (0.25, 0, 0.5, (0.271667, 0.447658, 0.802342, 0.978333)),
        (0.25, 0.25, 0.5, (0.259146, 0.371548, 0.707380, 0.954012)),
        (0, 0, 1, (0.089856, 0.327360, 0.672640, 0.910144)),
    ],
)
def test_oracle_of_methods_a13(minimum, shift, sharpness, expected):
    scores = torch.tensor([0.1, 0.3, 0.5, 0.7])
    mean, std = mean_std(score_sums(scores))
    assert mean.item() == pytest.approx(0.4) and std.item() == pytest.approx(0.2236068)
    found = pair_weights(scores, mean, std, minimum=minimum, shift=shift, sharpness=sharpness)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


@given(st.floats(0, 1), st.floats(-2, 2), st.floats(0.01, 4), st.sampled_from(["affine", "clamp"]))
@settings(max_examples=50, deadline=None)
def test_weights_grow_with_the_score_within_their_range(minimum, shift, sharpness, truncation):
    scores = torch.linspace(-1, 1, 41).requires_grad_()
    how = {"minimum": minimum, "shift": shift, "sharpness": sharpness, "truncation": truncation}
    found = pair_weights(scores, 0.1, 0.3, **how)
    assert not found.requires_grad
    assert (found.diff() >= -1e-6).all() and found.min() >= minimum - 1e-6 and found.max() <= 1
    for score, weight in zip(scores.tolist(), found.tolist(), strict=True):
        phi = (1 + math.erf((score - (0.1 + shift * 0.3)) / (sharpness**0.5 * 0.3) / math.sqrt(2))) / 2
        expected = max(minimum, phi) if truncation == "clamp" else minimum + (1 - minimum) * phi
        assert weight == pytest.approx(expected, abs=2e-6)


def test_limits():
    scores = torch.tensor([-0.9, 0.0, 0.9])
    for truncation in ("affine", "clamp"):
        plain = pair_weights(scores, 0.0, 0.5, minimum=1, shift=0.3, sharpness=0.5, truncation=truncation)
        assert torch.equal(plain, torch.ones(3)), "minimum 1 is no weighting, exactly"
    equal = pair_weights(torch.full((3,), 0.4), *mean_std(score_sums(torch.full((9,), 0.4))), **HOW)
    assert torch.isfinite(equal).all()
    step = pair_weights(scores + 0.01, 0.0, 0.5, minimum=0.25, shift=0, sharpness=1e-6)
    assert step.tolist() == [0.25, 1, 1], "sharpness towards 0 is a step at the mean"


HOW = {"minimum": 0.25, "shift": 0.0, "sharpness": 0.5}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_pair_scores_in_chunks(dtype):
    video, audio = random_units(23, 8, seed=1).to(dtype), random_units(23, 8, seed=2).to(dtype)
    expected = (video.double() * audio.double()).sum(1)
    for chunk in (1, 5, 23, 100):
        found = pair_scores(video, audio, chunk=chunk)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    gathered = pair_scores(video.expand(3, 23, 8), audio.expand(3, 23, 8), chunk=7)
    torch.testing.assert_close(gathered.double(), expected.expand(3, 23), rtol=1e-6, atol=1e-6)


def test_sums_of_parts_are_the_sums_of_the_whole():
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.01 + 0.9
    parts = torch.stack([score_sums(part) for part in scores.split(77)]).sum(0)
    mean, std = mean_std(parts)
    assert mean.item() == pytest.approx(scores.double().mean().item(), rel=1e-6)
    assert std.item() == pytest.approx(scores.double().std(correction=0).item(), rel=1e-6)
    assert mean_std(score_sums(torch.full((7,), 0.3)))[1].item() == pytest.approx(0, abs=1e-7)


def test_moving_average_starts_with_the_first_batch_and_follows():
    batches = [torch.randn(20, generator=torch.Generator().manual_seed(s)) * 0.1 + 0.2 for s in range(300)]
    average = follow(torch.zeros(3, dtype=torch.float64), score_sums(batches[0]), 0.9)
    assert mean_std(average)[0].item() == pytest.approx(batches[0].mean().item())
    assert torch.equal(follow(average, score_sums(batches[0][:0]), 0.9), average), "an empty batch says nothing"
    moved = follow(average, score_sums(batches[1]), 0.9)
    first, second = (torch.stack([batch.double().pow(k).mean() for k in (0, 1, 2)]) for batch in batches[:2])
    torch.testing.assert_close(moved, 0.9 * first + 0.1 * second)
    for batch in batches[1:]:
        average = follow(average, score_sums(batch), 0.99)
    mean, std = mean_std(average)
    assert mean.item() == pytest.approx(0.2, abs=0.01) and std.item() == pytest.approx(0.1, abs=0.01)
