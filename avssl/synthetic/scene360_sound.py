"""The sound of a 360° scene: each object's from where it is, a decoy's from nowhere, noise from everywhere."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from avssl.errors import UsageError
from avssl.rng import sample_generator
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_objects import Scene360, Sounding
from avssl.synthetic.scene360_place import HUM_DB, hum
from avssl.synthetic.world_sound import PEAK, coloured_noise, render_sound

_STEP_S = 0.01  # between the directions worked out; straight in between
_LEVEL = 0.1  # root mean square of a real sound


def render_sound360(config: Scene360Config, scene: Scene360) -> np.ndarray:
    """Samples [4, S] float32 within ±1, ambiX; sample n is at time n / rate."""
    import torch

    from avssl.spatial.ambisonics import encode

    samples = round(config.duration_s * config.audio_rate_hz)
    random = sample_generator(config.seed, 12, scene.clip)
    total = np.zeros((4, samples), np.float32)
    grid_s = np.arange(0.0, config.duration_s + _STEP_S, _STEP_S)
    times_s = np.arange(samples) / config.audio_rate_hz
    for each in scene.objects:
        middles = each.motion(grid_s)[0]
        path = np.stack([np.interp(times_s, grid_s, axis) for axis in middles.T], 1)
        path /= np.linalg.norm(path, axis=1, keepdims=True)
        mono = _mono(config, each)
        total += encode(torch.from_numpy(mono), torch.from_numpy(path.astype(np.float32))).numpy()
    if scene.decoy is not None:
        total[0] += _mono(config, scene.decoy)
    loudness = float(np.sqrt(np.square(total[0]).mean())) or _LEVEL
    total += loudness * 10 ** (scene.ambience_db / 20) * _diffuse([coloured_noise(samples, random) for _ in range(4)])
    if (place := scene.place) is not None:
        random = sample_generator(config.seed, 15, scene.clip)
        noises = [hum(place, samples, config.audio_rate_hz, random) for _ in range(4)]
        total += loudness * config.place * 10 ** (HUM_DB / 20) * _diffuse(noises)
    return total * min(1.0, PEAK / max(float(np.abs(total).max()), 1e-9))


def as_track(sound: np.ndarray, ambisonics: str) -> np.ndarray:
    """Channels as the file has them (`avssl.spatial.formats`) of ambiX [4, S]."""
    import torch

    from avssl.spatial.formats import from_ambix

    return from_ambix(torch.from_numpy(sound), ambisonics).numpy()  # type: ignore[arg-type]


def _mono(config: Scene360Config, sounding: Sounding) -> np.ndarray:
    """[S] float32: rendered in step with the motion, or cut from a real sound of its class."""
    if config.sounds is None:
        return render_sound(
            sounding.look, config.duration_s, config.audio_rate_hz, seed=config.seed, clip=sounding.number
        )[0]
    random = sample_generator(config.seed, 13, sounding.number)
    files = _files(config.sounds, sounding.name)
    return _real_sound(files[random.integers(len(files))], config, random) * np.float32(sounding.look.gain / 0.25)


@functools.lru_cache(maxsize=256)
def _files(sounds: str, name: str) -> list[str]:
    found = sorted(str(path) for path in (Path(sounds) / name).iterdir() if path.is_file())
    if not found:
        raise UsageError(f"{Path(sounds) / name}: holds no sound; remove the folder or put sounds there")
    return found


def _real_sound(path: str, config: Scene360Config, random: np.random.Generator) -> np.ndarray:
    """A random cut [S] at one level; a shorter file comes again and again."""
    from avssl.media import open_media

    samples = round(config.duration_s * config.audio_rate_hz)
    with open_media(path) as media:
        spare_s = max(0.0, media.info.duration_s - config.duration_s)
        start_s = random.uniform(0.0, spare_s) if spare_s else 0.0
        length_s = min(config.duration_s, media.info.duration_s)
        heard = media.audio_between(start_s, length_s, rate_hz=config.audio_rate_hz).samples[0]
    heard = np.resize(heard, samples)
    return heard * np.float32(_LEVEL / max(float(np.sqrt(np.square(heard).mean())), 1e-4))


def _diffuse(noises: list[np.ndarray]) -> np.ndarray:
    """Noise from all around alike [4, S] of four independent ones [S], of level 1 in W: in SN3D the others have a third
    of its power."""
    noise = np.stack([channel / np.sqrt(np.square(channel).mean()) for channel in noises])
    noise[1:] *= np.sqrt(1 / 3)
    return noise
