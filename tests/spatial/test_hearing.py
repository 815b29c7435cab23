"""What viewpoints hear: the reference vectors of methods C.4, and picture and sound kept together."""

import math

import numpy as np
import pytest
import torch

from avssl.errors import UsageError
from avssl.spatial.ambisonics import encode, mirror, rotate
from avssl.spatial.config import ViewConfig
from avssl.spatial.directions import direction, rotation
from avssl.spatial.draw import draw_views
from avssl.spatial.hear import hear, to_view
from avssl.spatial.views import see


def centre(x, y):
    """A view at normalised picture coordinates, as methods C.4 gives its test vectors."""
    return torch.tensor([[[(1 - 2 * x) * 180, (1 - 2 * y) * 90, 0.0, 90.0, 90.0]]], dtype=torch.float64)


def wave(views, order=1):
    """A plane wave [B, C, 1] of level 1 from the first view's centre."""
    return encode(torch.ones(len(views), 1, dtype=views.dtype), direction(views[:, 0, 0], views[:, 0, 1]), order)


@pytest.mark.parametrize(
    ("x", "y", "released"),
    [
        (0.25, 0.33, (1, -0.259, 0.438, 0.861)),
        (0.1, 0.66, (1, -0.188, -0.764, 0.618)),
        (0.2, 0.5, (1, 0, 0, 1)),
        (0.9, 0.5, (1, 0, 0, 1)),
    ],
)
def test_reference_vectors(x, y, released):
    views = centre(x, y)
    corrected = hear(wave(views), views)[0, 0, :, 0]
    assert corrected.tolist() == pytest.approx([1, 0, 0, 1], abs=1e-12)
    found = hear(wave(views), views, rotation="released")[0, 0, :, 0]
    assert found.tolist() == pytest.approx(released, abs=1e-3)


def test_released_error_of_the_front_for_views_as_configured():
    """methods C.4: 14.8 degrees on average, 9.7 median, up to 61."""
    random = np.random.default_rng(0)
    config = ViewConfig(views=4)
    config.switches.latitude = config.switches.spacing = "released"
    views = torch.from_numpy(np.concatenate([draw_views(random, config)["view_deg"] for _ in range(2000)])).double()
    front = to_view(views, "released") @ direction(views[:, 0], views[:, 1])[..., None]
    off_deg = front[:, 0, 0].clamp(-1, 1).arccos().rad2deg()
    assert off_deg.mean().item() == pytest.approx(14.8, abs=0.5)
    assert off_deg.median().item() == pytest.approx(9.7, abs=0.5)
    assert off_deg.max().item() == pytest.approx(61, abs=1)


@pytest.mark.parametrize("order", [1, 3])
def test_what_a_view_looks_at_is_in_front_whatever_its_roll(order):
    random = np.random.default_rng(1)
    views = torch.from_numpy(random.uniform([-180, -90, -180, 30, 30], [180, 90, 180, 90, 90], (20, 1, 5)))
    ahead = encode(torch.ones(1, dtype=torch.float64), torch.tensor([1.0, 0, 0], dtype=torch.float64), order)
    torch.testing.assert_close(hear(wave(views, order), views), ahead.expand(20, 1, -1, -1))


def test_sound_is_where_the_picture_shows_it():
    """A bright spot and a sound from the same direction: the view shows the spot where it hears the sound."""
    height, width = 256, 512
    random = np.random.default_rng(2)
    for _ in range(20):
        azimuth, elevation = random.uniform(-180, 180), random.uniform(-60, 60)
        views = torch.tensor([[[azimuth, elevation, 0.0, 90.0, 90.0]]], dtype=torch.float64)
        views[..., :3] += torch.from_numpy(random.uniform([-20, -20, -60], [20, 20, 60]))
        flips = torch.tensor([[random.random() < 0.5]])
        source = direction(torch.tensor(azimuth, dtype=torch.float64), elevation)
        phi = math.pi * (1 - 2 * (torch.arange(width) + 0.5) / width).double()
        nu = math.pi / 2 * (1 - 2 * (torch.arange(height) + 0.5) / height).double()
        nu, phi = torch.meshgrid(nu, phi, indexing="ij")
        pixels = torch.stack([nu.cos() * phi.cos(), nu.cos() * phi.sin(), nu.sin()], -1)
        spot = (60 * (pixels @ source - 1)).exp()[None, None, ..., None]
        shown = see(spot, views, (64, 64), flips=flips, dtype=torch.float64)[0, 0, 0, ..., 0]
        row, column = divmod(int(shown.argmax()), 64)
        _, y, z, x = hear(encode(torch.ones(1, 1).double(), source[None]), views, flips=flips)[0, 0, :, 0]
        assert -y / x == pytest.approx((2 * (column + 0.5) / 64 - 1), abs=0.05)
        assert -z / x == pytest.approx((2 * (row + 0.5) / 64 - 1), abs=0.05)


def test_mirrored_scene_is_heard_as_the_mirrored_view():
    random = np.random.default_rng(3)
    sound = torch.from_numpy(random.normal(size=(2, 4, 30)))
    views = torch.from_numpy(random.uniform(-60, 60, (2, 3, 5)))
    opposite = views * torch.tensor([-1.0, 1, -1, 1, 1])
    flipped = hear(sound, views, flips=torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(flipped, hear(mirror(sound), opposite))
    signs = torch.tensor([1.0, -1, 1, 1], dtype=torch.float64)[:, None]  # Y negated
    torch.testing.assert_close(flipped, hear(sound, views) * signs)


def test_turning_scene_and_view_together_changes_nothing():
    random = np.random.default_rng(4)
    sound = torch.from_numpy(random.normal(size=(1, 9, 30)))
    views = torch.from_numpy(random.uniform(-60, 60, (1, 3, 5)))
    turned = views + torch.tensor([77.0, 0, 0, 0, 0])
    both = hear(rotate(sound, rotation(torch.tensor(77.0, dtype=torch.float64))), turned)
    torch.testing.assert_close(both, hear(sound, views))


def test_mono_and_stereo_face_the_view():
    """methods C.4: mono is W + Y sin(phi)cos(nu) + Z sin(nu) + X cos(phi)cos(nu); stereo its left and right."""
    random = np.random.default_rng(5)
    sound = torch.from_numpy(random.normal(size=(1, 4, 30)))
    views = torch.from_numpy(random.uniform(-80, 80, (1, 3, 5)))
    mono = hear(sound, views, hearing="mono")
    assert mono.shape == (1, 3, 1, 30)
    w, y, z, x = sound[0]
    for k in range(3):
        phi, nu = views[0, k, :2].deg2rad()
        expected = w + y * phi.sin() * nu.cos() + z * nu.sin() + x * phi.cos() * nu.cos()
        torch.testing.assert_close(mono[0, k, 0], expected)
    left, right = hear(sound, views, hearing="stereo").unbind(2)
    turned = hear(sound, views)
    torch.testing.assert_close(left, turned[:, :, 0] + turned[:, :, 1])
    torch.testing.assert_close(right, turned[:, :, 0] - turned[:, :, 1])


def test_a_batch_equals_its_scenes_one_by_one():
    random = np.random.default_rng(6)
    sound = torch.from_numpy(random.normal(size=(3, 4, 50))).float()
    views = torch.from_numpy(random.uniform(-60, 60, (3, 2, 5))).float()
    flips = torch.tensor([[True, False], [False, False], [True, True]])
    whole = hear(sound, views, flips=flips)
    for b in range(3):
        for k in range(2):
            alone = hear(sound[b : b + 1], views[b : b + 1, k : k + 1], flips=flips[b : b + 1, k : k + 1])
            torch.testing.assert_close(whole[b, k], alone[0, 0])


def test_wrong_shapes_are_named():
    with pytest.raises(UsageError, match=r"got \[4, 10\]"):
        hear(torch.zeros(4, 10), torch.zeros(1, 1, 5))
    with pytest.raises(UsageError, match="6 channels"):
        hear(torch.zeros(1, 6, 10), torch.zeros(1, 1, 5))
