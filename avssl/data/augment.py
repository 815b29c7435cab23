"""The random numbers of augmentation, drawn in the worker; `transforms` applies them on the device.

Drawn where the sample's generator lives, they depend on (seed, epoch, row, draw) only, like the clip itself.
"""

from __future__ import annotations

import math

import numpy as np

from avssl.data.config import AugmentConfig

_CROP_ATTEMPTS = 10


def draw_video(
    generator: np.random.Generator, config: AugmentConfig, clips: int, height_px: int, width_px: int
) -> dict[str, np.ndarray]:
    """Parameters of `clips` clips of one size.

    crop_px [K, 4] int32: top, left, height, width of the box; flip [K] bool; jitter [K, 4] float32: factors of
    brightness, contrast, saturation and shift of hue; jitter_order [K, 4] uint8: which of the four comes when
    (both absent where the config changes no colour).
    """
    boxes = [random_box(generator, config, height_px, width_px) for _ in range(clips)]
    drawn = {"crop_px": np.array(boxes, np.int32), "flip": generator.random(clips) < config.flip}
    return drawn | draw_colour(generator, config, clips)


def draw_colour(generator: np.random.Generator, config: AugmentConfig, clips: int) -> dict[str, np.ndarray]:
    """The changes of colour of `clips` clips, see `draw_video`."""
    drawn: dict[str, np.ndarray] = {}
    reach = (config.brightness, config.contrast, config.saturation)
    if any(reach) or config.hue:
        ranges = [*((max(0.0, 1 - value), 1 + value) for value in reach), (-config.hue, config.hue)]
        places = generator.random((clips, 4)).tolist()
        factors = [[low + at * (high - low) for at, (low, high) in zip(row, ranges, strict=True)] for row in places]
        drawn["jitter"] = np.array(factors, np.float32)
        drawn["jitter_order"] = generator.random((clips, 4)).argsort(1).astype(np.uint8)
    return drawn


def draw_audio(generator: np.random.Generator, config: AugmentConfig, clips: int) -> dict[str, np.ndarray]:
    """gain [K] float32: the factor on each window's samples."""
    return {"gain": generator.uniform(*config.gain, clips).astype(np.float32)}


def draw_speed(generator: np.random.Generator, config: AugmentConfig) -> float:
    """How much faster a sound is played than it was recorded."""
    low, high = config.speed
    return low if low == high else low * (high / low) ** generator.random()


def played_faster(sound: np.ndarray, samples: int) -> np.ndarray:
    """[C, S] float32 squeezed or stretched to [C, samples], band-limited: its spectrum is cut or filled with zeros.

    The transform takes the sound as periodic, so its first and last milliseconds leak into each other.
    """
    if sound.shape[1] == samples:
        return sound
    spectrum = np.fft.rfft(sound)
    scale = samples / sound.shape[1]
    return (np.fft.irfft(spectrum[:, : samples // 2 + 1], samples) * scale).astype(np.float32)


def random_box(
    generator: np.random.Generator, config: AugmentConfig, height_px: int, width_px: int
) -> tuple[int, int, int, int]:
    """The box (top, left, height, width) of a random resized crop.

    The first of ten drawn boxes that fits the frame; if none does, the largest centred box of an allowed aspect.
    """
    narrowest, widest = config.crop_aspect
    smallest, largest = (share * height_px * width_px for share in config.crop_area)
    places = generator.random((_CROP_ATTEMPTS, 4)).tolist()
    for area, aspect, down, right in places:
        area = smallest + area * (largest - smallest)
        aspect = narrowest * (widest / narrowest) ** aspect
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= height_px and 0 < width <= width_px:
            top, left = int(down * (height_px - height + 1)), int(right * (width_px - width + 1))
            break
    else:
        width = min(width_px, max(1, round(height_px * widest)))
        height = min(height_px, max(1, round(width_px / narrowest)))
        top, left = (height_px - height) // 2, (width_px - width) // 2
    return top, left, height, width
