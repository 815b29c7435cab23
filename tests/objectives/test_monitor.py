"""Uniformity, tolerance and the effective number of negatives: identities and known values."""

import math

import pytest
import torch
from objective_tools import random_units

from avssl.objectives.monitor import effective_negatives, tolerance, uniformity


def slow_uniformity(first, second):
    terms = [
        math.exp(-2 * float((x - y).square().sum()))
        for i, x in enumerate(first.double())
        for j, y in enumerate(second.double())
        if i != j
    ]
    return math.log(sum(terms) / len(terms))


def test_uniformity_equals_its_definition():
    video, audio = random_units(9, 5, seed=1), random_units(9, 5, seed=2)
    assert uniformity(video).item() == pytest.approx(slow_uniformity(video, video), abs=1e-5)
    assert uniformity(video, audio).item() == pytest.approx(slow_uniformity(video, audio), abs=1e-5)


def test_uniformity_of_collapsed_random_and_rotated_vectors():
    """0 where all are equal, about -3.88 for random directions in 64 dimensions; a rotation changes nothing."""
    assert uniformity(random_units(1, 64).expand(20, 64)).item() == pytest.approx(0, abs=1e-5)
    random = random_units(1000, 64, seed=3)
    assert uniformity(random).item() == pytest.approx(-3.88, abs=0.01)
    rotation, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(4)))
    assert uniformity(random @ rotation).item() == pytest.approx(uniformity(random).item(), abs=1e-4)


def test_tolerance_is_the_mean_over_pairs_of_a_class():
    embeddings, labels = random_units(8, 5, seed=5), torch.tensor([0, 1, 0, 2, 1, 1, 3, 0])
    pairs = [
        float(embeddings[i].double() @ embeddings[j].double())
        for i in range(8)
        for j in range(8)
        if i != j and labels[i] == labels[j]
    ]
    assert tolerance(embeddings, labels).item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert tolerance(embeddings, torch.arange(8)).isnan()


def test_effective_number_of_negatives():
    """All of them when they are alike, towards one as the temperature falls; the push on them is what P gives."""
    similarities = torch.tensor([[0.9, 0.3, 0.2, 0.1, -torch.inf]])
    own = torch.tensor([0])
    assert effective_negatives(similarities / 1e6, own).item() == pytest.approx(3, abs=1e-4)
    assert effective_negatives(similarities / 1e-3, own).item() == pytest.approx(1, abs=1e-4)
    warm, cold = (effective_negatives(similarities / tau, own).item() for tau in (0.5, 0.05))
    assert 1 < cold < warm < 3
    assert effective_negatives(torch.tensor([[0.5, -torch.inf]]), own).item() == 0
    r = torch.tensor([0.3, 0.2, 0.1]).double().div(0.05).softmax(0)
    assert cold == pytest.approx(math.exp(-(r * r.log()).sum()), rel=1e-5)
