"""Places: what a whole scene looks and sounds like, whatever happens in it and wherever one looks.

Real recordings can be told from each other without any direction: by light and colours, by the room or the street one
hears. A place has that. Its ground, its sky and the grain of its surfaces are three numbers, and it hums in three bands
of noise whose pitches are the same three numbers; the hum is diffuse, alike from everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avssl.rng import sample_generator
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.world_picture import hsv_to_rgb

HUM_DB = -6.0  # of all bands together, against the objects, where `Scene360Config.place` is 1
_PITCHES_HZ = ((150.0, 800.0), (3500.0, 7000.0), (1100.0, 2700.0))  # of ground, sky, grain: at 0 and at 1
_OCTAVES = 0.08  # deviation of a band's bell
_HUES = 0.75  # of the colour circle: red to violet, so that 0 and 1 do not look alike
_WAVES = (2.0, 16.0)  # radians of texture a radian of the sphere, at 0 and at 1
_HORIZON = 0.15  # how softly ground and sky meet


@dataclass(frozen=True)
class Place:
    """Numbers from 0 to 1: the ground's colour and low pitch, the sky's and high pitch, the grain and middle pitch."""

    ground: float
    sky: float
    grain: float

    @property
    def pitches_hz(self) -> list[float]:
        """Where its bands of noise lie."""
        numbers = (self.ground, self.sky, self.grain)
        return [low * (high / low) ** number for number, (low, high) in zip(numbers, _PITCHES_HZ, strict=True)]


def draw_place(config: Scene360Config, clip: int) -> Place | None:
    """The place of clip number `clip`, drawn uniformly; None where clips have none."""
    if config.place == 0:
        return None
    return Place(*sample_generator(config.seed, 14, clip).uniform(size=3))


def in_its_colours(background: np.ndarray, directions: np.ndarray, place: Place, strength: float) -> np.ndarray:
    """The background [H, W, 3] in 0..255, seen in these directions [H, W, 3], turned into the place by `strength`, 0 to
    1: its light and shade stay, its colours become those of ground and sky, with waves of the place's grain over it."""
    above = 0.5 * (1 + np.tanh(directions[..., 2:] / _HORIZON))
    ground, sky = (hsv_to_rgb(_HUES * number, 0.8, 1.0) for number in (place.ground, place.sky))
    count = _WAVES[0] * (_WAVES[1] / _WAVES[0]) ** place.grain
    waves = np.mean([np.sin(count * (directions @ axis)) for axis in _AXES], 0)[..., None]
    light = 0.35 + 0.3 * background.mean(-1, keepdims=True) / 255.0 + 0.2 * waves
    painted = 255.0 * light * ((1 - above) * ground + above * sky)
    return (background + strength * (painted - background)).astype(np.float32)


def hum(place: Place, samples: int, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """The place's sound [S], float32, of level 1: noise in its three bands, equally strong."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / rate_hz), 1.0))
    spectrum = np.fft.rfft(random.normal(size=samples))
    bands = [
        np.fft.irfft(spectrum * np.exp(-0.5 * ((octaves - np.log2(pitch_hz)) / _OCTAVES) ** 2), samples)
        for pitch_hz in place.pitches_hz
    ]
    total = np.sum([band / np.sqrt(np.square(band).mean()) for band in bands], 0)
    return (total / np.sqrt(np.square(total).mean())).astype(np.float32)


_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.8, 0.0], [0.8, -0.6, 0.0]], np.float32)  # of the waves
