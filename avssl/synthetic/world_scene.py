"""What happens in one clip of the rendered world: its class traits, its random circumstances, its events.

A *class* fixes a shape, a way of moving, a stripe texture, a typical hue, a timbre, a pitch register and a rhythm.
A *scene* is one draw from a class: where, how large, how fast, which colours, how loud, how high. Picture and sound are
rendered from the same scene, so they share two things beyond the class: the times of the events (each impact, swing or
flash starts a sound) and the size (larger things sound lower). That is what a model can learn without labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avssl.rng import sample_generator

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross", "bar", "crescent")
MOTIONS = ("bounces", "slides", "swings", "spins", "pulses", "flashes", "hops", "shakes")
TIMBRES = ("bell", "pluck", "flute", "wood", "hiss", "chirp", "drop", "buzz")
RHYTHMS = ((1.0,), (1.0, 1.0, 2.0), (1.5, 0.5), (0.5, 0.5, 1.0), (1.25, 0.75, 1.0))
MAX_CLASSES = 32  # of four laps of eight any two classes still differ in two traits

LEAD_S = 4.0  # events are drawn from this long before time zero, so that a clip starts in mid-action
GOLDEN = 0.618034  # steps of the golden ratio spread hues evenly for any number of classes


@dataclass(frozen=True)
class ClassTraits:
    """What all clips of a class have in common. Any two classes differ in two of shape, motion and timbre."""

    shape: str
    motion: str
    timbre: str
    hue: float  # of the moving shape, 0..1, the centre of a wide spread
    stripes: float  # cycles across the shape
    pitch_hz: float  # the centre of the register
    rhythm: tuple[float, ...]  # relative gaps between events, repeated

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.motion}-{self.timbre}"


def class_traits(label: int) -> ClassTraits:
    """The traits of class number `label` (0..31). They depend on the number alone, never on a seed or a class count."""
    lap = label // len(SHAPES)  # the first 8 classes share no shape, motion or timbre; later laps recombine them
    return ClassTraits(
        shape=SHAPES[label % 8],
        motion=MOTIONS[(label + lap) % 8],
        timbre=TIMBRES[(label + 3 * lap) % 8],
        hue=label * GOLDEN % 1.0,
        stripes=(0.0, 1.5, 3.0)[(label + lap) % 3],
        pitch_hz=220.0 * 2.0 ** ((label * 5 % 8) / 4.0),  # eight registers over two octaves
        rhythm=RHYTHMS[(label + 2 * lap) % len(RHYTHMS)],
    )


@dataclass(frozen=True)
class Scene:
    """One draw from a class. Lengths are in units of the picture's side, angles in radians."""

    traits: ClassTraits
    events_s: np.ndarray  # [E] float64, ascending, from before time zero to after the end
    x: float
    y: float
    radius: float
    reach: float  # how far the motion goes
    angle: float
    turn: float  # how far one event turns a spinning shape
    drift: float  # sideways per second
    hue: float
    saturation: float
    brightness: float
    background_hue: float
    background_brightness: float
    pitch_hz: float
    decay: float  # relative length of the sounds
    gain: float
    noise_gain: float  # of the background noise, relative to the sound's peak

    def events_within(self, duration_s: float) -> list[float]:
        """The events that a clip of this duration contains, in seconds, rounded to a tenth of a millisecond."""
        return [round(float(t), 4) for t in self.events_s if 0 <= t < duration_s]


def draw_scene(seed: int, clip: int, label: int, duration_s: float, variation: float, noise: float) -> Scene:
    """The scene of clip number `clip`: a function of the arguments alone.

    `variation` scales everything random within a class (0: every clip of a class starts alike, only its tempo differs);
    `noise` scales the noise in picture and sound.
    """
    random = sample_generator(seed, 0, clip)
    traits = class_traits(label)

    def around(centre: float, spread: float) -> float:
        return centre + variation * spread * random.uniform(-1.0, 1.0)

    size = variation * random.uniform(-1.0, 1.0)
    semitones = -5.0 * size + around(0.0, 1.5)  # larger is lower
    return Scene(
        traits=traits,
        events_s=_events(sample_generator(seed, 3, clip), traits.rhythm, duration_s),
        x=around(0.5, 0.2),
        y=around(0.5, 0.15),
        radius=0.17 * 2.0 ** (0.7 * size),
        reach=around(0.26, 0.08),
        angle=around(0.0, np.pi),
        turn=around(0.9, 0.3) * (1 if random.random() < 0.5 else -1),
        drift=around(0.0, 0.06),
        hue=(traits.hue + variation * random.normal(0.0, 0.08)) % 1.0,
        saturation=around(0.65, 0.3),
        brightness=around(0.75, 0.25),
        background_hue=random.random(),
        background_brightness=around(0.35, 0.25),
        pitch_hz=traits.pitch_hz * 2.0 ** (semitones / 12.0),
        decay=2.0 ** around(0.0, 0.6),
        gain=10.0 ** (around(-12.0, 9.0) / 20.0),
        noise_gain=noise * 10.0 ** (around(-30.0, 10.0) / 20.0),
    )


def _events(random: np.random.Generator, rhythm: tuple[float, ...], duration_s: float) -> np.ndarray:
    """Event times from before `-LEAD_S` until past the end: the class's rhythm at the clip's own tempo and phase."""
    beat_s = float(np.exp(random.uniform(np.log(0.28), np.log(0.75))))
    cycle = beat_s * np.asarray(rhythm)
    cycles = int(np.ceil((duration_s + 2 * LEAD_S) / cycle.sum())) + 1
    gaps = np.tile(cycle, cycles) * random.normal(1.0, 0.03, cycles * len(rhythm)).clip(0.8, 1.2)
    return -LEAD_S - random.uniform(0.0, cycle.sum()) + np.cumsum(gaps)
