"""Ambisonics: harmonics against SciPy, rotations by their defining property, formats by theirs."""

import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from avssl.errors import UsageError
from avssl.spatial.ambisonics import encode, harmonics, mirror, order_of, project, rotate, rotation_matrix
from avssl.spatial.directions import direction, rotation
from avssl.spatial.formats import from_ambix, to_ambix


def vectors(count, seed=0):
    found = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3)))
    return found / found.norm(dim=-1, keepdim=True)


def rotations(count, seed=0):
    angles = torch.from_numpy(np.random.default_rng(seed).uniform(-180, 180, (3, count)))
    return rotation(*angles)


def scene(order, seed=0, samples=50):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=((order + 1) ** 2, samples)))


def test_first_order_is_w_y_z_x():
    """methods C.1: W=1, Y=sin(phi)cos(nu), Z=sin(nu), X=cos(phi)cos(nu)."""
    phi, nu = math.radians(40), math.radians(-25)
    found = harmonics(direction(torch.tensor(40.0, dtype=torch.float64), -25.0))
    expected = [1, math.sin(phi) * math.cos(nu), math.sin(nu), math.cos(phi) * math.cos(nu)]
    assert found.tolist() == pytest.approx(expected)


def test_harmonics_are_scipy_s():
    """SN3D without Condon-Shortley from the complex orthonormal ones: times √(4π / (2n + 1)) √2 (-1)^m."""
    points = vectors(30)
    theta, phi = points[:, 2].arccos().numpy(), torch.atan2(points[:, 1], points[:, 0]).numpy()
    found = harmonics(points, 5)
    for n in range(6):
        for m in range(-n, n + 1):
            value = sph_harm_y(n, abs(m), theta, phi) * math.sqrt(4 * math.pi / (2 * n + 1)) * (-1) ** m
            part = value.real if m >= 0 else value.imag
            expected = part * (math.sqrt(2) if m else 1)
            np.testing.assert_allclose(found[:, n * n + n + m].numpy(), expected, atol=1e-12, err_msg=f"{n} {m}")


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_rotation_turns_plane_waves(order):
    matrices, points = rotations(6), vectors(25, 1)
    turned = rotation_matrix(matrices, order) @ harmonics(points, order).T
    for matrix, found in zip(matrices, turned, strict=True):
        torch.testing.assert_close(found.T, harmonics(points @ matrix.T, order), atol=1e-10, rtol=0)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_rotations_are_orthogonal_and_compose(order):
    first, second = rotations(8, 1), rotations(8, 2)
    a, b = rotation_matrix(first, order), rotation_matrix(second, order)
    identity = torch.eye((order + 1) ** 2, dtype=torch.float64).expand_as(a)
    torch.testing.assert_close(a @ a.mT, identity, atol=1e-10, rtol=0)
    torch.testing.assert_close(b @ a, rotation_matrix(second @ first, order), atol=1e-10, rtol=0)
    torch.testing.assert_close(rotation_matrix(torch.eye(3, dtype=torch.float64).expand(8, 3, 3), order), identity)


@pytest.mark.parametrize("order", [1, 3])
def test_turning_back_restores_and_keeps_the_energy_of_each_degree(order):
    sound, matrix = scene(order), rotations(1, 3)[0]
    turned = rotate(sound, matrix)
    torch.testing.assert_close(rotate(turned, matrix.T), sound)
    for n in range(order + 1):
        band = slice(n * n, (n + 1) ** 2)
        assert turned[band].square().sum().item() == pytest.approx(sound[band].square().sum().item())


def test_single_precision_rotates_to_rounding():
    points, matrix = vectors(200).float(), rotations(1, 4)[0].float()
    turned = rotation_matrix(matrix, 3) @ harmonics(points, 3).T
    assert (turned.T - harmonics(points @ matrix.T, 3)).abs().max() < 3e-6


def test_yaw_is_the_formula_of_the_misalignment():
    """methods C.4: Y' = Y cos + X sin, X' = X cos - Y sin; W and Z stay."""
    sound, yaw = scene(1), 70.0
    w, y, z, x = sound
    cosine, sine = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    expected = torch.stack([w, y * cosine + x * sine, z, x * cosine - y * sine])
    torch.testing.assert_close(rotate(sound, rotation(torch.tensor(yaw, dtype=torch.float64))), expected)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_mirror_swaps_left_and_right(order):
    mono = scene(0)[0]
    there, opposite = (direction(torch.tensor(a, dtype=torch.float64), 20.0) for a in (50.0, -50.0))
    torch.testing.assert_close(mirror(encode(mono, there, order)), encode(mono, opposite, order))
    sound = scene(order, 1)
    torch.testing.assert_close(mirror(mirror(sound)), sound)


def test_a_moving_source_is_encoded_sample_by_sample():
    path, mono = vectors(50, 5), scene(0)[0]
    found = encode(mono, path, 2)
    assert found.shape == (9, 50)
    for n in (0, 20, 49):
        torch.testing.assert_close(found[:, n], mono[n] * harmonics(path[n], 2))


def test_projection_picks_what_is_in_front_of_it():
    points = vectors(4, 6)
    one = encode(scene(0)[0], points[0])
    torch.testing.assert_close(project(one, points[:1])[0], 2 * one[0])
    torch.testing.assert_close(project(one, -points[:1])[0], 0 * one[0])
    gains = project(encode(torch.ones(4, 1, dtype=torch.float64), points), points[None])[..., 0]  # [wave, beam]
    torch.testing.assert_close(gains, 1 + points @ points.T)
    high = project(encode(torch.ones(1, dtype=torch.float64), points[0], 3), points[:1])
    assert high.item() == pytest.approx(4)


@pytest.mark.parametrize("layout", ["ambix", "n3d", "fuma", "youtube"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_formats_invert(layout, order):
    sound = scene(order)[None]
    if layout == "youtube" and order > 1:
        with pytest.raises(UsageError, match="first order"):
            from_ambix(sound, layout)
        return
    torch.testing.assert_close(to_ambix(from_ambix(sound, layout), layout), sound)


def test_first_order_channels_of_each_format():
    w, y, z, x = 1.0, 2.0, 3.0, 4.0
    sound = torch.tensor([[w], [y], [z], [x]])
    root = math.sqrt(3)
    assert from_ambix(sound, "n3d").flatten().tolist() == pytest.approx([w, root * y, root * z, root * x])
    assert from_ambix(sound, "fuma").flatten().tolist() == pytest.approx([w / math.sqrt(2), x, y, z])
    assert from_ambix(sound, "youtube").flatten().tolist() == [x, y, w, 0, z, 0]


def test_n3d_is_orthonormal_and_fuma_peaks_at_one():
    """What defines the two: mean square 1 over the sphere; greatest value 1 (W at 1/√2)."""
    count = 20_000
    number = torch.arange(count, dtype=torch.float64)
    azimuth, z = number * (math.pi * (3 - math.sqrt(5))), 1 - (2 * number + 1) / count
    waves = harmonics(direction(azimuth.rad2deg(), z.arcsin().rad2deg()), 3).T
    n3d = from_ambix(waves, "n3d")
    torch.testing.assert_close(n3d @ n3d.T / count, torch.eye(16, dtype=torch.float64), atol=1e-3, rtol=0)
    peaks = from_ambix(waves, "fuma").abs().amax(1)
    assert peaks[0].item() == pytest.approx(math.sqrt(0.5))
    assert peaks[1:].tolist() == pytest.approx([1.0] * 15, abs=2e-3)


def test_fuma_channels_by_their_textbook_formulas():
    """R S T U V K … Q as published for B-format (Furse and Malham), at one direction."""
    a, e = math.radians(33), math.radians(17)
    sin, cos, tau = math.sin, math.cos, cos_squared(e)
    expected = [
        (3 * sin(e) ** 2 - 1) / 2, cos(a) * sin(2 * e), sin(a) * sin(2 * e), cos(2 * a) * tau, sin(2 * a) * tau,
        sin(e) * (5 * sin(e) ** 2 - 3) / 2,
        math.sqrt(135 / 256) * cos(a) * cos(e) * (5 * sin(e) ** 2 - 1),
        math.sqrt(135 / 256) * sin(a) * cos(e) * (5 * sin(e) ** 2 - 1),
        math.sqrt(27 / 4) * cos(2 * a) * sin(e) * tau, math.sqrt(27 / 4) * sin(2 * a) * sin(e) * tau,
        cos(3 * a) * cos(e) ** 3, sin(3 * a) * cos(e) ** 3,
    ]  # fmt: skip
    wave = harmonics(direction(torch.tensor(33.0, dtype=torch.float64), 17.0), 3)[:, None]
    assert from_ambix(wave, "fuma")[4:, 0].tolist() == pytest.approx(expected)


def cos_squared(angle):
    return math.cos(angle) ** 2


def test_gradients_are_right_also_at_the_pole():
    up = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.0, 0.8]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: harmonics(d, 3), (up,))
    sound = scene(2, samples=3).requires_grad_()
    yaw = torch.tensor(20.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, a: rotate(s, rotation(a, 10.0)), (sound, yaw))


def test_what_does_not_fit_is_named():
    with pytest.raises(UsageError, match="6 channels"):
        order_of(6)
    with pytest.raises(UsageError, match="6 channels"):
        to_ambix(torch.zeros(6, 2), "ambix")
    with pytest.raises(UsageError, match="not 4"):
        to_ambix(torch.zeros(4, 2), "youtube")
    with pytest.raises(UsageError, match="third order"):
        to_ambix(torch.zeros(25, 2), "fuma")
    with pytest.raises(UsageError, match="ambix"):
        to_ambix(torch.zeros(4, 2), "ambics")
