"""Mixtures: energies, who is mixed with whom, loudness, peaks; what is left; sources that sum to the mixture."""

import pytest
import torch

from avssl.errors import UsageError
from avssl.separation.consistency import make_consistent, residual
from avssl.separation.mixing import BEND_HZ, bend, match_energy, mix_neighbours


def segments(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4000, generator=generator) * torch.logspace(-2, -0.5, count)[:, None]


def decibels(a, b):
    return 10 * (a.square().mean(-1) / b.square().mean(-1)).log10()


@pytest.mark.parametrize("sources", [2, 3, 5])
def test_neighbours_are_added_at_the_targets_energy(sources):
    x = segments()
    mixed = mix_neighbours(x, sources)
    assert torch.equal(mixed.target, x)
    torch.testing.assert_close(mixed.mixture, mixed.target + mixed.interference)
    for n in range(5):
        expected = torch.zeros(4000)
        for step in range(1, sources):
            other = x[(n + step) % 5]
            expected += other * (x[n].square().mean() / other.square().mean()).sqrt()
        torch.testing.assert_close(mixed.interference[n], expected, rtol=1e-4, atol=1e-6)


def test_gains_are_bounded_and_silence_stays_silence():
    loud, quiet, silent = torch.ones(1, 100), torch.full((1, 100), 1e-3), torch.zeros(1, 100)
    assert match_energy(loud, quiet).item() == 50
    assert match_energy(quiet, 10 * loud).item() == pytest.approx(0.02)
    assert match_energy(loud, silent).item() == 50 and match_energy(silent, loud).item() == pytest.approx(0.02)
    assert mix_neighbours(torch.zeros(3, 100)).mixture.abs().max() == 0


def test_loudness_is_drawn_from_the_range_around_equal_energy():
    x = segments(400)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    mixed = mix_neighbours(x, loudness_db=(-10, 10), generator=torch.Generator().manual_seed(1))
    drawn = decibels(mixed.interference, mixed.target)
    assert drawn.min() >= -10.01 and drawn.max() <= 10.01
    torch.testing.assert_close(drawn.sort().values, torch.linspace(-10, 10, 400), rtol=0, atol=1.5)  # uniform
    again = mix_neighbours(x, loudness_db=(-10, 10), generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.mixture, mixed.mixture)


def test_declipping_scales_all_three_alike_and_only_where_needed():
    x = segments() * torch.tensor([1, 1, 1, 1, 20.0])[:, None]
    plain, safe = mix_neighbours(x), mix_neighbours(x, peak=0.9)
    peaks = plain.mixture.abs().amax(1)
    clipped = peaks > 1
    assert clipped.any() and not clipped.all()
    scale = torch.where(clipped, 0.9 / peaks, 1.0)[:, None]
    for a, b in zip(plain, safe, strict=True):
        torch.testing.assert_close(b, a * scale)
    assert safe.mixture.abs().max() <= 1


def test_nothing_is_mixed_with_itself():
    with pytest.raises(UsageError, match="3 sources out of a batch of 2"):
        mix_neighbours(segments(2), 3)
    with pytest.raises(UsageError, match="at least 2"):
        mix_neighbours(segments(2), 1)


@pytest.mark.parametrize("share", ["equal", "energy"])
def test_consistent_sources_sum_to_the_mixture(share):
    sources, mixture = segments(3), segments(1, seed=1)[0]
    fixed = make_consistent(mixture, sources, share)
    torch.testing.assert_close(fixed.sum(0), mixture, rtol=0, atol=1e-6)
    torch.testing.assert_close(make_consistent(mixture, fixed, share), fixed, rtol=0, atol=1e-6)
    assert residual(mixture, fixed).abs().max() < 1e-6
    batch = make_consistent(torch.stack([mixture, -mixture]), torch.stack([sources, sources]), share)
    torch.testing.assert_close(batch[0], fixed)


def test_by_energy_a_silent_source_stays_silent_and_equal_is_the_least_change():
    sources, mixture = segments(3), segments(1, seed=1)[0]
    sources[1] = 0
    assert make_consistent(mixture, sources, "energy")[1].abs().max() < 1e-4 * mixture.abs().max()
    equal = make_consistent(mixture, sources, "equal")
    for share in (torch.tensor([1.0, 0, 0]), torch.tensor([0.5, 0.3, 0.2])):
        other = sources + share[:, None] * residual(mixture, sources)
        assert (equal - sources).square().sum() < (other - sources).square().sum()
    assert make_consistent(mixture, torch.zeros(2, 4000), "energy").isfinite().all()


def test_bending_changes_levels_smoothly_and_keeps_phases():
    rate_hz, samples = 32000, 32000  # bins of 1 Hz
    click = torch.zeros(500, samples)
    click[:, 0] = 1
    spectra = torch.fft.rfft(bend(click, rate_hz, 3.0, torch.Generator().manual_seed(0)))
    assert float(spectra.imag.abs().max()) < 1e-4 and float(spectra.real.min()) > 0
    gain_db = 20 * spectra.real.log10()
    at = [round(edge) for edge in BEND_HZ]
    torch.testing.assert_close(gain_db[:, at].std(0), torch.full((len(at),), 3.0), rtol=0.15, atol=0)
    assert abs(float(torch.corrcoef(gain_db[:, at].T)[0, 1])) < 0.15  # independent of each other
    middle = round((BEND_HZ[2] * BEND_HZ[3]) ** 0.5)
    torch.testing.assert_close(gain_db[:, middle], gain_db[:, at[2:4]].mean(1), atol=0.02, rtol=0)
    torch.testing.assert_close(gain_db[:, 20], gain_db[:, at[0]], atol=0.02, rtol=0)  # flat beyond the ends
    torch.testing.assert_close(bend(click, rate_hz, 0.0), click, atol=1e-6, rtol=0)
