"""Directions and coordinates, for pictures and sound alike: the one place that says which way is which.

- **Vectors** [..., 3]: +X front, +Y left, +Z up.
- **Angles** in degrees: azimuth 0 is front, +90 left, ±180 behind; elevation 90 is up.
- **Equirectangular pictures**: x in [0, 1] from left to right, y in [0, 1] from top to bottom, over the whole sphere
  whatever the picture's shape: azimuth = (1 - 2x) 180, elevation = (1 - 2y) 90. Column j of W has its centre at
  x = (j + 0.5) / W.
- **Rotations** [..., 3, 3] act on column vectors. `rotation(yaw, pitch, roll)` takes the front to azimuth `yaw` and
  elevation `pitch`; `roll` turns about the front axis before that, lifting what is on the left.
- **A viewpoint** with that pose sees along its own front: its `rotation` takes view coordinates to scene coordinates,
  the transpose takes scene to view.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Angle = Tensor | float


def direction(azimuth_deg: Angle, elevation_deg: Angle = 0.0) -> Tensor:
    """Unit vectors [..., 3] from angles [...] (broadcast against each other)."""
    azimuth, elevation = _radians(azimuth_deg, elevation_deg)
    level = elevation.cos()
    return torch.stack([level * azimuth.cos(), level * azimuth.sin(), elevation.sin()], -1)


def angles_deg(vector: Tensor) -> tuple[Tensor, Tensor]:
    """Azimuth in [-180, 180] and elevation in [-90, 90] of vectors [..., 3] of any length but 0."""
    x, y, z = vector.unbind(-1)
    return torch.atan2(y, x).rad2deg(), torch.atan2(z, (x * x + y * y).sqrt()).rad2deg()


def picture_position(vector: Tensor) -> Tensor:
    """Where directions [..., 3] lie on the equirectangular picture: (x, y) [..., 2], each in [0, 1]."""
    x, y, z = vector.unbind(-1)
    across, down = torch.atan2(-y, x), torch.atan2(-z, (x * x + y * y).sqrt())
    return torch.stack([across.mul_(0.5 / math.pi).add_(0.5), down.mul_(1 / math.pi).add_(0.5)], -1)


def picture_direction(position: Tensor) -> Tensor:
    """The inverse: unit vectors [..., 3] of positions (x, y) [..., 2]."""
    x, y = position.unbind(-1)
    return direction((1 - 2 * x) * 180, (1 - 2 * y) * 90)


def rotation(yaw_deg: Angle, pitch_deg: Angle = 0.0, roll_deg: Angle = 0.0) -> Tensor:
    """Matrices [..., 3, 3] = Rz(yaw) Ry(-pitch) Rx(roll), from angles [...] (broadcast against each other).

    The columns are where the axes go: front, left, up.
    """
    yaw, pitch, roll = _radians(yaw_deg, pitch_deg, roll_deg)
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    front = torch.stack([cos_pitch * cos_yaw, cos_pitch * sin_yaw, sin_pitch], -1)
    left = torch.stack([-sin_yaw, cos_yaw, torch.zeros_like(yaw)], -1)  # before the roll, as `up`
    up = torch.stack([-sin_pitch * cos_yaw, -sin_pitch * sin_yaw, cos_pitch], -1)
    cos_roll, sin_roll = roll.cos()[..., None], roll.sin()[..., None]
    return torch.stack([front, cos_roll * left + sin_roll * up, cos_roll * up - sin_roll * left], -1)


def _radians(*angles_deg: Angle) -> list[Tensor]:
    given = next((angle for angle in angles_deg if isinstance(angle, Tensor)), torch.zeros(()))
    tensors = [torch.as_tensor(angle, dtype=given.dtype, device=given.device) for angle in angles_deg]
    return [angle.deg2rad() for angle in torch.broadcast_tensors(*tensors)]
