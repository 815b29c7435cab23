"""Metrics against float64 references written from their definitions, against invariances, and in silence."""

import math

import numpy as np
import pytest
import torch

from avssl.separation.metrics import improvement, median_by_class, sdr, sdr_v4, si_sdr


def signals(shape=(3, 8000)):
    generator = torch.Generator().manual_seed(0)
    s, n, noise = (torch.randn(shape, generator=generator) for _ in range(3))
    return 0.8 * s + 0.1 * n + 0.05 * noise, s, s + n


def slow_si_sdr(x: np.ndarray, s: np.ndarray) -> float:
    alpha = float(x @ s) / float(s @ s)
    return 10 * math.log10(float((alpha * s) @ (alpha * s)) / float((x - alpha * s) @ (x - alpha * s)))


def test_sdr_and_si_sdr_are_their_definitions():
    x, s, _ = signals()
    for n in range(3):
        a, b = x[n].double().numpy(), s[n].double().numpy()
        assert sdr(x, s)[n].item() == pytest.approx(10 * math.log10((b @ b) / ((a - b) @ (a - b))), abs=1e-6)
        assert si_sdr(x, s)[n].item() == pytest.approx(slow_si_sdr(a, b), abs=1e-9)


def test_a_known_value():
    time = torch.arange(32000, dtype=torch.float64) / 32000
    s, n = torch.sin(2 * torch.pi * 100 * time), torch.sin(2 * torch.pi * 300 * time)  # orthogonal, equal energy
    assert sdr(0.8 * s + 0.1 * n, s).item() == pytest.approx(-10 * math.log10(0.2**2 + 0.1**2))
    assert si_sdr(0.8 * s + 0.1 * n, s).item() == pytest.approx(20 * math.log10(8))
    assert improvement(si_sdr, 0.8 * s + 0.1 * n, s, s + n).item() == pytest.approx(20 * math.log10(8))


def test_only_si_sdr_forgives_a_gain():
    x, s, mixture = signals()
    torch.testing.assert_close(si_sdr(-3 * x, s), si_sdr(x, s))
    torch.testing.assert_close(si_sdr(x, 5 * s), si_sdr(x, s))
    assert (sdr(-3 * x, s) < sdr(x, s) - 10).all()
    torch.testing.assert_close(improvement(sdr, mixture, s, mixture), torch.zeros(3, dtype=torch.float64))


def test_silence_has_defined_values():
    x, s, zero = torch.ones(100), torch.linspace(-1, 1, 100), torch.zeros(100)
    assert sdr(zero, s) == 0 and sdr(zero, zero) == 0
    assert sdr(x, zero).item() == pytest.approx(-100)
    assert sdr(s, s).item() == pytest.approx(10 * math.log10(float(s.double().square().mean()) / 1e-10))
    assert si_sdr(zero, s) == -100 and si_sdr(s, s) == 100
    assert si_sdr(x, zero).isnan() and si_sdr(zero, zero).isnan()
    assert si_sdr(x - x.mean() + torch.ones(100).cumsum(0) * 0, s) == -100  # nothing of the reference in it


def test_v4_is_the_median_of_frames_that_are_not_silent():
    x, s, _ = signals((2, 8000))  # two channels
    x[:, 3000:4000] = 0
    ratios = []
    for begin in range(0, 8000, 1000):
        a, b = x[:, begin : begin + 1000].double(), s[:, begin : begin + 1000].double()
        if begin != 3000:
            ratios.append(float(10 * (b.square().sum() / (a - b).square().sum()).log10()))
    assert sdr_v4(x, s, 1000).item() == pytest.approx(float(np.median(ratios)), abs=1e-9)
    assert sdr_v4(torch.zeros(2, 8000), s, 1000).isnan()


def test_medians_over_items_then_the_mean_over_classes():
    values = torch.tensor([1.0, 5.0, 100.0, 3.0, torch.nan, torch.nan])
    mean, medians = median_by_class(values, ["a", "a", "a", "b", "b", "c"])
    assert medians["a"] == 5 and medians["b"] == 3 and math.isnan(medians["c"]) and mean == 4
