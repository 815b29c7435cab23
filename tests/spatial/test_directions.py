"""Directions: the conventions written down in `avssl.spatial.directions`, checked by hand-made cases and properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from avssl.spatial.directions import angles_deg, direction, picture_direction, picture_position, rotation

ANGLE = st.floats(-180, 180, width=32)
PITCH = st.floats(-89, 89, width=32)


def double(*values):
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "vector", "position"),
    [
        (0.0, 0.0, [1, 0, 0], [0.5, 0.5]),  # front: the middle of the picture
        (90.0, 0.0, [0, 1, 0], [0.25, 0.5]),  # left: the left half
        (-90.0, 0.0, [0, -1, 0], [0.75, 0.5]),
        (0.0, 90.0, [0, 0, 1], [0.5, 0.0]),  # up: the top row
        (0.0, -45.0, [0.5**0.5, 0, -(0.5**0.5)], [0.5, 0.75]),
    ],
)
def test_named_directions(azimuth_deg, elevation_deg, vector, position):
    found = direction(*double(azimuth_deg, elevation_deg))
    torch.testing.assert_close(found, torch.tensor(vector, dtype=torch.float64))
    torch.testing.assert_close(picture_position(found), torch.tensor(position, dtype=torch.float64))


@given(ANGLE, PITCH)
def test_angles_and_positions_invert(azimuth_deg, elevation_deg):
    vector = direction(*double(azimuth_deg, elevation_deg))
    assert vector.norm().item() == pytest.approx(1)
    azimuth, elevation = angles_deg(3 * vector)
    torch.testing.assert_close(direction(azimuth, elevation), vector)
    torch.testing.assert_close(picture_direction(picture_position(vector)), vector)


@given(ANGLE, PITCH, ANGLE)
def test_rotations_are_proper_and_take_the_front_to_their_direction(yaw, pitch, roll):
    matrix = rotation(*double(yaw, pitch, roll))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(matrix).item() == pytest.approx(1)
    torch.testing.assert_close(matrix[:, 0], direction(*double(yaw, pitch)))


def test_roll_lifts_the_left_and_yaws_add_up():
    left = direction(*double(90.0, 0.0))
    torch.testing.assert_close(rotation(*double(0.0, 0.0, 90.0)) @ left, direction(*double(0.0, 90.0)))
    both = rotation(*double(30.0)) @ rotation(*double(50.0))
    torch.testing.assert_close(both, rotation(*double(80.0)))


def test_angles_broadcast():
    assert rotation(torch.zeros(2, 3), 10.0, torch.zeros(3)).shape == (2, 3, 3, 3)
    assert direction(torch.zeros(4, 1), torch.zeros(5)).shape == (4, 5, 3)
