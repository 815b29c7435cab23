"""Rates: a conversion is right, has no seams however the signal comes in, and the way back gives signal and length."""

import math

import pytest
import torch

from avssl.errors import UsageError
from avssl.separation.rates import Converter


def tone(rate_hz, seconds=1.0, hz=440.0):
    time = torch.arange(round(rate_hz * seconds), dtype=torch.float64) / rate_hz
    return torch.sin(2 * math.pi * hz * time).float()


@pytest.mark.parametrize(("outer", "inner"), [(44100, 32000), (16000, 32000), (8000, 16000), (11025, 8000)])
def test_a_tone_stays_that_tone(outer, inner):
    found, expected = Converter(outer, inner).whole(tone(outer)), tone(inner)
    assert len(found) == math.ceil(outer * inner / outer)
    inside = slice(inner // 50, -inner // 50)
    assert (found[inside] - expected[inside]).abs().max() < 2e-5


@pytest.mark.parametrize("outer", [8000, 11025, 44100, 44099, 96000])
def test_there_and_back(outer):
    """Also for a rate that has no common measure with the other. What the lower rate cannot hold is not in the tone."""
    x = torch.stack([tone(outer, 0.7), 0.5 * tone(outer, 0.7, 1000.0)])
    back = Converter(32000, outer).whole(Converter(outer, 32000).whole(x))
    assert 0 <= back.shape[1] - x.shape[1] <= max(1, outer // 32000 + 1)
    inside = slice(outer // 50, x.shape[1] - outer // 50)
    assert (back[:, inside] - x[:, inside]).abs().max() < 2e-5


@pytest.mark.parametrize("lengths", [[1, 2, 3, 5000, 1, 700], [50] * 60, [4410]])
def test_blocks_of_any_length_give_the_whole(lengths):
    x = torch.randn(2, sum(lengths), generator=torch.Generator().manual_seed(0))
    converter = Converter(44100, 32000)
    parts = list(converter.stream(iter(x.split(lengths, dim=1))))
    torch.testing.assert_close(torch.cat(parts, dim=1), converter.whole(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7, 300])
def test_a_few_samples_are_enough(length):
    assert Converter(44100, 32000).whole(torch.ones(length)).shape == (math.ceil(length * 320 / 441),)


def test_a_constant_stays_constant_to_its_ends():
    assert (Converter(44100, 32000).whole(torch.full((3000,), 0.5)) - 0.5).abs().max() < 1e-4


def test_equal_rates_change_nothing():
    x = torch.randn(3, 100)
    assert Converter(32000, 32000).whole(x) is not None
    torch.testing.assert_close(Converter(32000, 32000).whole(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("rate_hz", [0, 999, 10**7, 44100.5])
def test_absurd_rates_are_refused(rate_hz):
    with pytest.raises(UsageError, match=f"a rate of {rate_hz} Hz is not accepted"):
        Converter(rate_hz, 32000)
