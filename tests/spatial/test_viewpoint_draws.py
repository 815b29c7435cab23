"""Drawn viewpoints and misalignments: their ranges, both ways, and that they depend on the sample's generator alone."""

import math

import numpy as np
import pytest
import torch

from avssl import config as configuration
from avssl.errors import ConfigError
from avssl.rng import sample_generator
from avssl.spatial.config import Switches, TurnConfig, ViewConfig
from avssl.spatial.directions import direction, rotation
from avssl.spatial.draw import draw_turn, draw_views


def many(config, count=500):
    draws = [draw_views(sample_generator(0, 0, row), config) for row in range(count)]
    return np.stack([draw["view_deg"] for draw in draws]), np.stack([draw["view_flip"] for draw in draws])


def closest_deg(views):
    """The least angle between two centres of each sample."""
    points = direction(*torch.from_numpy(views[..., :2]).double().unbind(-1))
    cosines = (points @ points.mT).clamp(-1, 1) - 3 * torch.eye(points.shape[-2])
    return cosines.amax((-2, -1)).arccos().rad2deg().numpy()


def test_corrected_ranges_and_spacing():
    views, flips = many(ViewConfig(views=4))
    azimuth, elevation, roll, across, down = np.moveaxis(views, -1, 0)
    assert closest_deg(views).min() >= 36 - 1e-3
    assert (roll == 0).all()
    for values, low, high in ((azimuth, -180, 180), (elevation, -60, 60), (across, 25, 90)):
        assert low <= values.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < values.max() <= high
    aspect = down / across
    assert aspect.min() >= 0.75 - 1e-6 and aspect.max() <= 4 / 3 + 1e-6
    assert abs(np.log(aspect).mean()) < 0.02
    assert (flips == flips[:, :1]).all() and 0.4 < flips[:, 0].mean() < 0.6


def test_released_ranges_and_no_spacing():
    views, flips = many(ViewConfig(views=4, switches=Switches.released()))
    assert views[..., 1].min() == pytest.approx(-28.8, abs=0.2) and views[..., 1].max() == pytest.approx(30.6, abs=0.2)
    assert closest_deg(views).min() < 10
    assert (flips != flips[:, :1]).any()


@pytest.mark.parametrize("name", ["latitude", "spacing", "flip"])
def test_each_switch_changes_its_own_thing_only(name):
    views, flips = many(ViewConfig(views=4, switches=Switches(**{name: "released"})), 200)
    assert (np.abs(views[..., 1]).max() < 31) == (name == "latitude")
    assert (closest_deg(views).min() < 30) == (name == "spacing")
    assert (flips != flips[:, :1]).any() == (name == "flip")


def test_draws_are_the_sample_s_own():
    first, again, other = (draw_views(sample_generator(1, 2, row), ViewConfig()) for row in (7, 7, 8))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["view_deg"], other["view_deg"])
    assert first["view_deg"].dtype == np.float32 and first["view_deg"].shape == (4, 5)
    assert first["view_flip"].dtype == bool and first["view_flip"].shape == (4,)


def test_eight_views_fit_and_hundred_do_not():
    views, _ = many(ViewConfig(views=8), 50)
    assert closest_deg(views).min() >= 36 - 1e-3
    with pytest.raises(ConfigError, match="100 centres 36° apart were not found"):
        draw_views(np.random.default_rng(0), ViewConfig(views=100))


@pytest.mark.parametrize("about", ["yaw", "pitch_yaw", "any"])
def test_turns_are_rotations_of_the_kind_asked_for(about):
    turns = [draw_turn(sample_generator(0, 0, row), TurnConfig(0.5, about)) for row in range(400)]
    turned = np.array([turn["turned"] for turn in turns])
    matrices = np.stack([turn["turn"] for turn in turns]).astype(np.float64)
    assert 0.4 < turned.mean() < 0.6
    assert (matrices[~turned] == np.eye(3)).all() and (matrices[turned] != np.eye(3)).any((1, 2)).all()
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.broadcast_to(np.eye(3), (400, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-6)
    front, left = matrices[turned][:, :, 0], matrices[turned][:, :, 1]
    if about == "yaw":
        assert np.abs(front[:, 2]).max() < 1e-7
        yaw = np.arctan2(front[:, 1], front[:, 0])
        assert abs(np.exp(1j * yaw).mean()) < 0.15
    else:
        assert np.abs(front.mean(0)).max() < 0.15 and np.abs(front[:, 2]).max() > 0.9  # uniform on the sphere
        assert (np.abs(left[:, 2]).max() < 1e-7) == (about == "pitch_yaw")


def test_numpy_and_torch_agree_about_angles():
    turn = draw_turn(np.random.default_rng(3), TurnConfig(1.0, "pitch_yaw"))["turn"].astype(np.float64)
    yaw, pitch = math.degrees(math.atan2(turn[1, 0], turn[0, 0])), math.degrees(math.asin(turn[2, 0]))
    np.testing.assert_allclose(rotation(torch.tensor(yaw, dtype=torch.float64), pitch).numpy(), turn, atol=1e-6)


def test_settings_are_built_and_checked_like_all_others():
    built = configuration.build(ViewConfig, {"views": 2, "switches": {"rotation": "released"}}, "views")
    assert built.switches == Switches(rotation="released")
    for wrong, message in (
        ({"views": 0}, "at least 1"),
        ({"fov_deg": [90.0, 25.0]}, "fov_deg"),
        ({"fov_deg": [25.0, 150.0]}, "180°"),
        ({"latitude_deg": [-100.0, 0.0]}, "latitude_deg"),
        ({"switches": {"rotation": "relaesed"}}, "rotation"),
    ):
        with pytest.raises(ConfigError, match=message):
            configuration.build(ViewConfig, wrong, "views")
    with pytest.raises(ConfigError, match="probability"):
        TurnConfig(share=2.0)
