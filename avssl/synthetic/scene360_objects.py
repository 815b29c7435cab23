"""Who is where in a 360° scene: objects of the rendered world's classes, on paths over the sphere.

An object's home drifts along the horizon and sways up and down; the object moves about its home as its class does in
the flat world (`avssl.synthetic.world`), on the plane that touches the sphere there. Where it is seen it is heard.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avssl.errors import ConfigError
from avssl.rng import sample_generator
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_place import Place, draw_place
from avssl.synthetic.world_picture import shape_motion
from avssl.synthetic.world_scene import Scene, draw_scene

REACH = 1.2  # what one picture side of the flat world measures on the touching plane (62°)
_SLOTS = 16  # objects and decoys a clip: their numbers are clip * _SLOTS + slot
_TRIES = 100
_RESTARTS = 20


@dataclass(frozen=True)
class Sounding:
    """Something that sounds: number (of all such things of a seed), class and its name, and how it looks."""

    number: int
    label: int
    name: str
    look: Scene


@dataclass(frozen=True)
class Object360(Sounding):
    """Something that is seen and heard. Angles in degrees, see `avssl.spatial.directions`."""

    azimuth_deg: float  # of the home at time zero
    elevation_deg: float
    speed_deg_s: float  # of the home, towards the left
    sway_deg: float  # up and down
    sway_s: float
    seed: int

    @property
    def diameter_deg(self) -> float:
        """Its angular size at rest."""
        return float(np.rad2deg(2 * np.arctan(REACH * self.look.radius)))

    def motion(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Unit vectors [T, 3] of its middle, radius on the touching plane, angle and light, each [T], at each time."""
        azimuth = np.deg2rad(self.azimuth_deg + self.speed_deg_s * times_s)
        sway = self.sway_deg * np.sin(2 * np.pi * times_s / self.sway_s)
        front, left, up = frame(azimuth, np.deg2rad(self.elevation_deg + sway))
        x, y, radius, angle, light = shape_motion(self.look, times_s, sample_generator(self.seed, 1, self.number))
        across, down = (REACH * (place[:, None] - 0.5) for place in (x, y))
        middle = front - across * left - down * up
        return middle / np.linalg.norm(middle, axis=1, keepdims=True), REACH * radius, angle, light

    def angles_deg(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Azimuth and elevation [T] of its middle."""
        x, y, z = self.motion(times_s)[0].T
        return np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arctan2(z, np.hypot(x, y)))


@dataclass(frozen=True)
class Scene360:
    """One clip: what is seen and heard, a mono sound from nowhere, the level of the diffuse noise, the background."""

    clip: int
    objects: tuple[Object360, ...]
    decoy: Sounding | None
    ambience_db: float
    panorama: str | None  # the background's file; None: rendered
    panorama_turn: float  # share of the full circle
    place: Place | None


def frame(azimuth: np.ndarray, elevation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Front, left and up [T, 3] of a level viewer who looks at these angles [T] in radians."""
    level, rise = np.cos(elevation), np.sin(elevation)
    cosine, sine, zero = np.cos(azimuth), np.sin(azimuth), np.zeros_like(azimuth)
    front = np.stack([level * cosine, level * sine, rise], 1)
    return front, np.stack([-sine, cosine, zero], 1), np.stack([-rise * cosine, -rise * sine, level], 1)


def draw_scene360(config: Scene360Config, clip: int) -> Scene360:
    """What happens in clip number `clip`: a function of the settings and the number alone.

    Raises ConfigError if so many objects do not fit at `spacing_deg`.
    """
    random = sample_generator(config.seed, 10, clip)
    names = config.class_names()
    labels = random.permutation(len(names)).tolist()  # no two objects of a clip are of one class
    count = int(random.integers(config.objects[0], config.objects[1] + 1))
    homes = _homes(random, config, count)
    objects = []
    for slot, (azimuth_deg, elevation_deg) in enumerate(homes):
        what = _sounding(config, clip * _SLOTS + slot, labels[slot], names)
        objects.append(
            Object360(
                **vars(what),
                azimuth_deg=azimuth_deg,
                elevation_deg=elevation_deg,
                speed_deg_s=config.speed_deg_s * random.uniform(-1, 1),
                sway_deg=min(config.speed_deg_s, 10.0) * random.uniform(0, 1),
                sway_s=random.uniform(3, 8),
                seed=config.seed,
            )
        )
    decoy = None
    if random.random() < config.decoys:
        decoy = _sounding(config, clip * _SLOTS + count, labels[count], names)
    turn = random.random()
    return Scene360(
        clip=clip,
        objects=tuple(objects),
        decoy=decoy,
        ambience_db=float(random.uniform(*config.ambience_db)),
        panorama=config.panoramas[random.integers(len(config.panoramas))] if config.panoramas else None,
        panorama_turn=turn,
        place=draw_place(config, clip),
    )


def _sounding(config: Scene360Config, number: int, label: int, names: list[str]) -> Sounding:
    look = draw_scene(config.seed, number, label, config.duration_s, config.variation, config.noise)
    # Its home moves already, and noise comes from all around, not from the object.
    look = replace(look, drift=0.0, noise_gain=0.0, radius=config.size * look.radius)
    return Sounding(number, label, names[label], look)


def _homes(random: np.random.Generator, config: Scene360Config, count: int) -> list[tuple[float, float]]:
    """Azimuth and elevation of each object at the start."""
    if count == 0:
        return []
    for _ in range(_RESTARTS):
        found: list[tuple[float, float]] = []
        vectors: list[np.ndarray] = []
        for _ in range(_TRIES * count):
            azimuth, elevation = random.uniform(-180, 180), random.uniform(-config.latitude_deg, config.latitude_deg)
            vector = frame(np.deg2rad([azimuth]), np.deg2rad([elevation]))[0][0]
            if all(vector @ other <= np.cos(np.deg2rad(config.spacing_deg)) for other in vectors):
                found.append((azimuth, elevation))
                vectors.append(vector)
            if len(found) == count:
                return found
    raise ConfigError(
        f"scenes360: {count} objects {config.spacing_deg:g}° apart do not fit within ±{config.latitude_deg:g}° of"
        " latitude; lower objects or spacing_deg"
    )
