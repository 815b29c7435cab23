"""The sound of a scene: one tone or noise of the class's timbre at each event, over background noise."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from avssl.rng import sample_generator
from avssl.synthetic.world_scene import Scene

PEAK = 0.9  # of full scale, after which nothing can clip

# Timbres made of decaying partials: (frequency ratio, amplitude, decay time in s) each.
PARTIALS: dict[str, list[tuple[float, float, float]]] = {
    "bell": [(1.0, 1.0, 0.5), (2.76, 0.6, 0.35), (5.40, 0.4, 0.2), (8.93, 0.2, 0.1)],
    "pluck": [(k, 1.0 / k, 0.35 / k) for k in range(1, 8)],
    "flute": [(1.0, 1.0, 0.25), (2.0, 0.15, 0.2), (3.0, 0.05, 0.2)],
    "wood": [(2.0, 1.0, 0.03), (5.1, 0.7, 0.015), (9.3, 0.5, 0.01)],
}
ATTACK_S = {"flute": 0.04, "buzz": 0.02}  # others start at once


def render_sound(scene: Scene, duration_s: float, rate_hz: int, *, seed: int, clip: int) -> np.ndarray:
    """Samples [1, S] float32 within ±1; sample n is at time n / rate_hz. Deterministic in all arguments."""
    random = sample_generator(seed, 2, clip)
    samples = round(duration_s * rate_hz)
    sound = np.zeros(samples, np.float32)
    note = _note(scene, rate_hz, random)
    for event_s in scene.events_s:
        start = round(event_s * rate_hz)
        first, last = max(start, 0), min(start + len(note), samples)
        if first < last:
            sound[first:last] += random.uniform(0.7, 1.0) * note[first - start : last - start]
    sound /= max(1.0, float(np.abs(sound).max()))
    sound += scene.noise_gain * coloured_noise(samples, random)
    sound *= scene.gain
    return (sound * min(1.0, PEAK / max(float(np.abs(sound).max()), 1e-9)))[None]


def _note(scene: Scene, rate_hz: int, random: np.random.Generator) -> np.ndarray:
    """One sound of the class's timbre at the scene's pitch, [S] float32, peak about 1."""
    time_s = np.arange(round(0.8 * rate_hz)) / rate_hz
    pitch_hz, timbre, nyquist_hz = scene.pitch_hz, scene.traits.timbre, rate_hz / 2
    fade = np.exp(-time_s / (0.12 * scene.decay))
    if timbre in PARTIALS:
        note = _sum(
            amplitude * np.exp(-time_s / (decay_s * scene.decay)) * np.sin(2 * np.pi * ratio * pitch_hz * time_s)
            for ratio, amplitude, decay_s in PARTIALS[timbre]
            if ratio * pitch_hz < nyquist_hz
        )
    elif timbre == "hiss":
        note = _band_noise(len(time_s), rate_hz, 3.0 * pitch_hz, random) * fade
    elif timbre == "chirp":  # up an octave and a half
        note = np.sin(2 * np.pi * np.cumsum(pitch_hz * 2 ** (1.5 * np.minimum(time_s / 0.2, 1))) / rate_hz) * fade
    elif timbre == "drop":  # down as far
        note = np.sin(2 * np.pi * np.cumsum(2 * pitch_hz * 2 ** (-1.5 * np.minimum(time_s / 0.2, 1))) / rate_hz) * fade
    else:  # buzz: an odd-harmonic tone that flutters
        tone = _sum(np.sin(2 * np.pi * k * 0.5 * pitch_hz * time_s) / k for k in range(1, 16, 2))
        note = tone * (0.6 + 0.4 * np.sin(2 * np.pi * 30.0 * time_s)) * fade
    note = note * np.minimum(1.0, time_s / ATTACK_S.get(timbre, 0.002))
    return (note / max(float(np.abs(note).max()), 1e-9)).astype(np.float32)


def _sum(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.sum(list(parts), axis=0)


def _band_noise(samples: int, rate_hz: int, centre_hz: float, random: np.random.Generator) -> np.ndarray:
    """Noise whose spectrum is a bell an octave wide about `centre_hz`."""
    spectrum = np.fft.rfft(random.normal(size=samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(samples, 1 / rate_hz), 1.0) / centre_hz)
    return np.fft.irfft(spectrum * np.exp(-0.5 * (octaves / 0.4) ** 2), samples)


def coloured_noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Background noise of unit peak with a random spectral slope, from white to about pink."""
    spectrum = np.fft.rfft(random.normal(size=samples).astype(np.float32))
    spectrum *= np.arange(1, len(spectrum) + 1, dtype=np.float32) ** -random.uniform(0.0, 0.6)
    noise = np.fft.irfft(spectrum, samples)
    return (noise / np.abs(noise).max()).astype(np.float32)
