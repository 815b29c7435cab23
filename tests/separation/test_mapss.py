"""MAPSS's measures on two harmonic sounds: perfect, swapped, leaking, scaled; and their degenerate cases."""

import pytest
import torch

from avssl.errors import UsageError
from avssl.separation.mapss import diffusion_map, distortions, log_spectra, mapss

RATE_HZ = 16000


def harmonic(hz, seconds=0.4):
    time = torch.arange(round(seconds * RATE_HZ), dtype=torch.float64) / RATE_HZ
    return sum(torch.sin(2 * torch.pi * hz * k * time) / k for k in range(1, 9))


@pytest.fixture(scope="module")
def references():
    return torch.stack([harmonic(220.0), harmonic(517.0)])


@pytest.fixture(scope="module")
def perfect(references):
    return mapss(references, references, log_spectra)


def leaking(references, level_db):
    return references + 10 ** (level_db / 20) * references.flip(0)


def test_perfect_is_high_and_swapped_is_low(references, perfect):
    assert (perfect.ps > 0.9).all() and (perfect.pm > 0.99).all()
    swapped = mapss(references, references.flip(0), log_spectra)
    assert (swapped.ps < 0.1).all() and (swapped.pm < 0.05).all()


def test_loudness_does_not_matter(references, perfect):
    scaled = mapss(references, references * torch.tensor([[7.0], [0.2]]), log_spectra)
    torch.testing.assert_close(scaled.ps, perfect.ps, rtol=0, atol=1e-3)
    torch.testing.assert_close(scaled.pm, perfect.pm, rtol=0, atol=1e-3)


def test_more_leakage_is_worse_and_at_equal_parts_nobody_can_tell(references):
    found = [mapss(references, leaking(references, level_db), log_spectra) for level_db in (-20, -10, 0, 5)]
    ps = [float(one.ps.mean()) for one in found]
    assert ps[0] > ps[1] > ps[2] > ps[3]
    assert ps[2] == pytest.approx(0.5, abs=0.02)
    pm = [float(one.pm.mean()) for one in found]
    assert pm[0] > pm[1] > pm[3]


def test_the_order_of_sources_is_the_order_of_scores(references):
    outputs = torch.stack([references[0], leaking(references, -10)[1]])
    one, other = mapss(references, outputs, log_spectra), mapss(references.flip(0), outputs.flip(0), log_spectra)
    torch.testing.assert_close(one.ps, other.ps.flip(0), rtol=0, atol=0.02)
    assert one.ps[0] > one.ps[1]


def test_frames_without_two_sources_are_left_out(references):
    silent = references.clone()
    silent[1, : references.shape[1] // 2] = 0
    found = mapss(silent, silent, log_spectra)
    frames = len(found.ps_frames)
    assert found.ps_frames[: frames // 2 - 1].isnan().all() and not found.ps_frames[frames // 2 + 1 :].isnan().any()
    nobody = mapss(references * torch.tensor([[1.0], [0.0]]), references, log_spectra)
    assert nobody.ps.isnan().all()


def test_equal_points_have_finite_places():
    assert diffusion_map(torch.ones(5, 3, dtype=torch.float64)).isfinite().all()
    assert distortions(harmonic(220.0), RATE_HZ).isfinite().all()


def test_one_source_is_refused(references):
    with pytest.raises(UsageError, match="at least two sources"):
        mapss(references[:1], references[:1], log_spectra)
