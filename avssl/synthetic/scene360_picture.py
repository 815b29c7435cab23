"""The picture of a 360° scene: shapes over an equirectangular background, with camera noise."""

from __future__ import annotations

import functools

import numpy as np

from avssl.errors import UsageError
from avssl.rng import sample_generator
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_objects import Object360, Scene360, frame
from avssl.synthetic.scene360_place import in_its_colours
from avssl.synthetic.world_picture import NOISE_SHARE, hsv_to_rgb, shape_distance

_EXTENT = 1.6  # of a shape, in units of its radius: nothing of it lies further out


def render_picture360(config: Scene360Config, scene: Scene360) -> np.ndarray:
    """Frames [T, H, W, 3] uint8 with W = `width_px` = 2 H; frame k shows time k / fps."""
    random = sample_generator(config.seed, 11, scene.clip)
    width, height = config.width_px, config.width_px // 2
    times_s = np.arange(round(config.duration_s * config.fps)) / config.fps
    if scene.panorama is not None:
        background = read_panorama(scene.panorama, width)
    else:
        background = _background(pixel_directions(width), random)
    if scene.place is not None:
        background = in_its_colours(background, pixel_directions(width), scene.place, config.place)
    background = np.roll(background, round(scene.panorama_turn * width), axis=1)
    frames = np.repeat(background[None].astype(np.float32), len(times_s), axis=0)
    for each in scene.objects:
        _paint(frames, each, times_s)
    grain = 255.0 * NOISE_SHARE * config.noise
    sheet = random.normal(0.0, grain, (2 * height, 2 * width)).astype(np.float32)
    for picture in frames:  # a window at a random place of one sheet, far cheaper than fresh noise
        top, left = random.integers(0, height), random.integers(0, width)
        picture += sheet[top : top + height, left : left + width, None]
    return frames.clip(0, 255, out=frames).astype(np.uint8)


@functools.lru_cache(maxsize=4)
def pixel_directions(width_px: int) -> np.ndarray:
    """Unit vectors [H, W, 3] that the centres of the pixels look in (see `avssl.spatial.directions`)."""
    azimuth = np.pi * (1 - 2 * (np.arange(width_px) + 0.5) / width_px)
    elevation = np.pi / 2 * (1 - 4 * (np.arange(width_px // 2) + 0.5) / width_px)
    level = np.cos(elevation)[:, None]
    rise = np.broadcast_to(np.sin(elevation)[:, None], (width_px // 2, width_px))
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), rise], -1).astype(np.float32)


@functools.lru_cache(maxsize=8)
def read_panorama(path: str, width_px: int) -> np.ndarray:
    """A 2:1 picture file as RGB uint8 [W / 2, W, 3]. Raises UsageError if it cannot be read or has another shape."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if abs(image.width / image.height - 2) > 0.01:
                raise UsageError(f"{path}: is {image.width}x{image.height}, but an equirectangular picture is 2:1")
            return np.asarray(image.convert("RGB").resize((width_px, width_px // 2), Image.Resampling.BOX))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: cannot be read as a picture ({error})") from None


def _paint(frames: np.ndarray, each: Object360, times_s: np.ndarray) -> None:
    """Paint the object over all frames [T, H, W, 3], each pixel of which it covers more or less of."""
    directions = pixel_directions(frames.shape[2]).reshape(-1, 3)
    pixel = 2 * np.pi / frames.shape[2]  # its side, in radians
    ink = 255.0 * hsv_to_rgb(each.look.hue, each.look.saturation, each.look.brightness)
    middles, radii, angles, lights = each.motion(times_s)
    _, lefts, ups = frame(np.arctan2(middles[:, 1], middles[:, 0]), np.arcsin(middles[:, 2].clip(-1, 1)))
    for picture, middle, left, up, radius, angle, light in zip(
        frames, middles, lefts, ups, radii, angles, lights, strict=True
    ):
        ahead = directions @ middle.astype(np.float32)
        near = np.flatnonzero(ahead > np.cos(np.arctan(_EXTENT * radius)))
        across, down = (directions[near] @ -axis.astype(np.float32) / ahead[near] / radius for axis in (left, up))
        cosine, sine = np.cos(angle), np.sin(angle)
        u, v = cosine * across + sine * down, cosine * down - sine * across
        cover = np.clip(0.5 - shape_distance(each.look.traits.shape, u, v) * radius / pixel, 0.0, 1.0)[:, None]
        shade = light * (0.8 + 0.2 * np.cos(np.pi * each.look.traits.stripes * u))[:, None]
        flat = picture.reshape(-1, 3)
        flat[near] += cover * (shade * ink - flat[near])


def _background(directions: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A still picture [H, W, 3] in 0..255 without a seam: waves over the sphere, and still discs, which are silent."""
    waves = np.zeros(directions.shape[:2], np.float32)
    for _ in range(6):
        wave = random.normal(0, 5, 3).astype(np.float32)
        waves += random.uniform(0.1, 0.3) * np.sin(directions @ wave + np.float32(random.uniform(0, 2 * np.pi)))
    value = np.clip(random.uniform(0.15, 0.6) * (1.0 + waves), 0.0, 1.0)[:, :, None]
    picture = value * hsv_to_rgb(random.random(), random.uniform(0.1, 0.6), 1.0)
    for _ in range(random.integers(2, 8)):
        middle = random.normal(size=3)
        reach = np.cos(random.uniform(0.06, 0.3))
        inside = (directions @ (middle / np.linalg.norm(middle)).astype(np.float32) > reach)[:, :, None]
        colour = hsv_to_rgb(random.random(), random.uniform(0.2, 0.9), random.uniform(0.3, 0.9))
        picture += inside * (colour - picture)
    return 255.0 * picture
