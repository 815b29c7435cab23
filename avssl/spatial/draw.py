"""The random numbers of viewpoints, drawn in the worker from the sample's own generator; NumPy only.

They depend on that generator alone, so a sample gets the same views whatever rank, worker or batch it is in.
"""

from __future__ import annotations

import numpy as np

from avssl.errors import ConfigError
from avssl.spatial.config import TurnConfig, ViewConfig

_RELEASED_LATITUDE_DEG = (-28.8, 30.6)  # y between 0.33 and 0.66 of the picture's height
_TRIES, _RESTARTS = 100, 20  # for the next centre; for the whole set


def draw_views(generator: np.random.Generator, config: ViewConfig) -> dict[str, np.ndarray]:
    """The viewpoints of one sample.

    view_deg [K, 5] float32: azimuth and elevation of the centre, roll (0), horizontal and vertical field of view;
    view_flip [K] bool: whether the view is mirrored (one answer for all K unless `switches.flip` is released).

    Raises ConfigError if so many centres do not fit at `spacing_deg`.
    """
    count, switches = config.views, config.switches
    centres = _centres(generator, config)
    fov_deg = generator.uniform(*config.fov_deg, count)
    flattest, tallest = config.aspect
    aspect = flattest * (tallest / flattest) ** generator.random(count)
    views = np.column_stack([centres, np.zeros(count), fov_deg, fov_deg * aspect])
    flips = generator.random(count if switches.flip == "released" else 1) < config.flip
    return {"view_deg": views.astype(np.float32), "view_flip": np.broadcast_to(flips, count).copy()}


def draw_turn(generator: np.random.Generator, config: TurnConfig) -> dict[str, np.ndarray]:
    """The misalignment of one sample: turn [3, 3] float32, the rotation of its sound scene, and turned [] bool.

    No rotation is too small to count as turned: some of them are nearly aligned, as in the published task.
    """
    turned = generator.random() < config.share
    yaw, pitch = generator.uniform(-np.pi, np.pi), np.arcsin(generator.uniform(-1, 1))
    quaternion = generator.normal(size=4)
    if not turned:
        turn = np.eye(3)
    elif config.about == "any":
        turn = _from_quaternion(quaternion / np.linalg.norm(quaternion))
    else:
        turn = _from_angles(yaw, pitch if config.about == "pitch_yaw" else 0.0)
    return {"turn": turn.astype(np.float32), "turned": np.array(turned)}


def _centres(generator: np.random.Generator, config: ViewConfig) -> np.ndarray:
    """[K, 2] azimuth and elevation in degrees. Each is drawn until it is far enough from those before it."""
    released = config.switches.latitude == "released"
    latitude_deg = _RELEASED_LATITUDE_DEG if released else config.latitude_deg
    spacing_deg = 0.0 if config.switches.spacing == "released" else config.spacing_deg
    nearest_cosine = np.cos(np.deg2rad(spacing_deg)) if spacing_deg > 0 else np.inf
    for _ in range(_RESTARTS):
        centres: list[tuple[float, float]] = []
        vectors: list[np.ndarray] = []
        for _ in range(config.views * _TRIES):
            azimuth, elevation = generator.uniform(-180, 180), generator.uniform(*latitude_deg)
            vector = _vector(azimuth, elevation)
            if all(vector @ other <= nearest_cosine for other in vectors):
                centres.append((azimuth, elevation))
                vectors.append(vector)
            if len(centres) == config.views:
                return np.array(centres)
    raise ConfigError(
        f"views: {config.views} centres {spacing_deg:g}° apart were not found between {latitude_deg[0]:g}° "
        f"and {latitude_deg[1]:g}° of latitude; lower views.views or views.spacing_deg, or widen views.latitude_deg"
    )


def _vector(azimuth_deg: float, elevation_deg: float) -> np.ndarray:
    azimuth, elevation = np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg)
    return np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])


def _from_angles(yaw: float, pitch: float) -> np.ndarray:
    """`avssl.spatial.directions.rotation` of angles in radians, without torch."""
    a, b, c, d = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[a * c, -b, -a * d], [b * c, a, -b * d], [d, 0.0, c]])


def _from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    w, *axis = quaternion
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross
