"""SSNR against a slow loop, its limits, and its invariances; the other ratios against independent packages."""

import math

import numpy as np
import pytest
import torch

from avssl import compat
from avssl.separation.metrics import sdr, sdr_v4, si_sdr, ssnr


def slow_ssnr(x: np.ndarray, s: np.ndarray, rate_hz: int) -> float:
    length, step = round(0.03 * rate_hz), math.floor(0.25 * 0.03 * rate_hz)
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(1, length + 1) / (length + 1)))
    ratios = []
    for begin in range(0, len(s) - length + 1, step):
        a, b = s[begin : begin + length] * window, (s - x)[begin : begin + length] * window
        ratio = 10 * math.log10(float(a @ a) / (float(b @ b) + np.finfo(float).eps) + np.finfo(float).eps)
        ratios.append(min(35.0, max(-10.0, ratio)))
    return float(np.mean(ratios[:-1]))


def signals(samples=5000):
    generator = np.random.default_rng(0)
    s = generator.standard_normal(samples) * np.linspace(0.001, 1, samples)
    return s + 0.1 * generator.standard_normal(samples), s


@pytest.mark.parametrize("rate_hz", [16000, 8000, 22050])
def test_ssnr_is_its_definition(rate_hz):
    x, s = signals()
    found = ssnr(torch.from_numpy(x), torch.from_numpy(s), rate_hz)
    assert found.item() == pytest.approx(slow_ssnr(x, s, rate_hz), abs=1e-9)


def test_ssnr_is_limited_and_batched():
    x, s = (torch.from_numpy(one) for one in signals())
    assert ssnr(s, s, 16000) == 35
    assert ssnr(1000 * s, s, 16000) == -10
    assert ssnr(torch.stack([x, s]), torch.stack([s, s]), 16000).tolist() == [ssnr(x, s, 16000).item(), 35]
    assert ssnr(s[:100], s[:100], 16000).isnan()


def test_ratios_equal_torchmetrics():
    compat.torchvision()  # torchmetrics imports it
    functional = pytest.importorskip("torchmetrics.functional.audio", reason="torchmetrics is not installed")
    generator = torch.Generator().manual_seed(0)
    s, n = (torch.randn(4, 8000, generator=generator, dtype=torch.float64) for _ in range(2))
    x = 0.8 * s + 0.1 * n
    snr = functional.signal_noise_ratio(x, s)
    torch.testing.assert_close(sdr(x, s), snr, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        si_sdr(x, s), functional.scale_invariant_signal_distortion_ratio(x, s), rtol=0, atol=1e-6
    )


def test_sdr_v4_equals_museval():
    metrics = pytest.importorskip("museval.metrics", reason="museval is not installed")
    generator = np.random.default_rng(0)
    references = generator.standard_normal((2, 8000, 2)) * np.linspace(0.1, 1, 8000)[None, :, None]
    estimates = 0.8 * references + 0.1 * references[::-1] + 0.05 * generator.standard_normal(references.shape)
    found, *_ = metrics.bss_eval(references, estimates, window=2000, hop=1000, filters_len=4)
    for n in range(2):
        ours = sdr_v4(torch.from_numpy(estimates[n].T.copy()), torch.from_numpy(references[n].T.copy()), 2000, 1000)
        assert ours.item() == pytest.approx(float(np.nanmedian(found[n])), abs=1e-9)
