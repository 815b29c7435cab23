"""The picture of a scene: a textured shape that moves over a textured background, with camera noise."""

from __future__ import annotations

import numpy as np

from avssl.rng import sample_generator
from avssl.synthetic.world_scene import Scene

NOISE_SHARE = 0.025  # standard deviation of the camera noise at noise level 1, of full brightness


def render_picture(
    scene: Scene, duration_s: float, fps: float, size_px: int, *, seed: int, clip: int, noise: float
) -> np.ndarray:
    """Frames [T, H, W, 3] uint8; frame k shows time k / fps. Deterministic in all arguments."""
    random = sample_generator(seed, 1, clip)
    times_s = np.arange(round(duration_s * fps)) / fps
    x, y, radius, angle, light = shape_motion(scene, times_s, random)

    axis = ((np.arange(size_px, dtype=np.float32) + 0.5) / size_px).astype(np.float32)
    dx = (axis[None, None, :] - x[:, None, None]) / radius[:, None, None]
    dy = (axis[None, :, None] - y[:, None, None]) / radius[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx  # the shape's own coordinates, its radius being 1

    edge_px = shape_distance(scene.traits.shape, u, v) * (radius * size_px)[:, None, None]
    cover = np.clip(0.5 - edge_px, 0.0, 1.0)  # one pixel of anti-aliasing
    shade = light[:, None, None] * (0.8 + 0.2 * np.cos(np.float32(np.pi * scene.traits.stripes) * u))

    ink = 255.0 * hsv_to_rgb(scene.hue, scene.saturation, scene.brightness)
    background = 255.0 * _background(scene, size_px, random)
    grain = _grain(random, len(times_s), size_px, 255.0 * NOISE_SHARE * noise)
    frames = np.empty((len(times_s), size_px, size_px, 3), np.uint8)
    for channel in range(3):
        plane = background[None, :, :, channel] + cover * (shade * ink[channel] - background[None, :, :, channel])
        plane += grain
        np.clip(plane, 0.0, 255.0, out=plane)
        frames[..., channel] = plane
    return frames


def shape_motion(scene: Scene, times_s: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Centre x and y, radius, angle and light of the shape at each time; each [T] float32."""
    last = np.searchsorted(scene.events_s, times_s, side="right") - 1
    since_s = times_s - scene.events_s[last]
    gap_s = scene.events_s[last + 1] - scene.events_s[last]
    part = since_s / gap_s  # 0 at an event, towards 1 before the next
    fade = np.exp(-since_s / 0.12)  # 1 at an event, gone a third of a second later

    sway = scene.drift * (times_s - times_s.mean())
    x, y = scene.x + sway, np.full(len(times_s), scene.y)
    radius = np.full(len(times_s), scene.radius)
    angle = scene.angle + 0.5 * sway
    light = np.ones(len(times_s))
    match scene.traits.motion:
        case "bounces":
            y = 1.0 - scene.radius - 2.2 * scene.reach * 4 * part * (1 - part) * np.minimum(1.0, gap_s / 0.6)
        case "slides":
            way = np.where(last % 2 == 0, part, 1 - part)
            x = scene.x + 1.6 * scene.reach * (way - 0.5)
        case "swings":
            lean = 1.1 * np.sin(np.pi * (last + part))
            x, y = scene.x + 1.5 * scene.reach * np.sin(lean), scene.y - scene.reach + 1.5 * scene.reach * np.cos(lean)
            angle = angle - lean
        case "spins":
            angle = angle + scene.turn * (last + 1 - fade)
        case "pulses":
            radius = radius * (0.75 + 0.7 * fade)
        case "flashes":
            light = 0.35 + 1.0 * fade
        case "hops":
            places = random.uniform(-1.0, 1.0, (len(scene.events_s), 2)) * scene.reach
            before, after = places[last - 1], places[last]
            x, y = np.stack([x, y]) + (after + (before - after) * np.exp(-since_s / 0.05)[:, None]).T
        case "shakes":
            x = x + 0.4 * scene.reach * np.exp(-since_s / 0.2) * np.cos(2 * np.pi * 5.0 * since_s)
    return tuple(value.astype(np.float32) for value in (x, y, radius, angle, light))


def shape_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Roughly the signed distance to the shape's edge in units of its radius, negative inside."""
    match shape:
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) - 0.85
        case "triangle":
            return np.maximum(v - 0.6, 0.87 * np.abs(u) - 0.5 * v - 0.55)
        case "bar":
            return np.maximum(np.abs(u) - 1.2, np.abs(v) - 0.35)
        case "cross":
            a, b = np.abs(u), np.abs(v)
            return np.maximum(np.maximum(a, b) - 1.0, np.minimum(a, b) - 0.33)
    rho = np.hypot(u, v)
    match shape:
        case "star":
            return 0.7 * (rho - 0.72 - 0.3 * np.cos(5 * np.arctan2(v, u)))
        case "ring":
            return np.abs(rho - 0.75) - 0.27
        case "crescent":
            return np.maximum(rho - 1.0, 0.75 - np.hypot(u - 0.5, v))
        case _:  # disc
            return rho - 0.95


def _background(scene: Scene, size_px: int, random: np.random.Generator) -> np.ndarray:
    """A still background [H, W, 3] in 0..1: a plasma of a few waves in two hues, and a few still distractor discs."""
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    across, down = axis[None, :], axis[:, None]
    plasma = np.zeros((size_px, size_px), np.float32)
    for _ in range(4):
        fx, fy, phase = random.uniform(-25, 25), random.uniform(-25, 25), random.uniform(0, 2 * np.pi)
        plasma += random.uniform(0.1, 0.3) * np.sin(fx * across + fy * down + phase)
    value = np.clip(scene.background_brightness * (1.0 + plasma), 0.0, 1.0)[:, :, None]
    tint = hsv_to_rgb(scene.background_hue, random.uniform(0.1, 0.6), 1.0)
    picture = value * tint
    for _ in range(random.integers(0, 4)):  # what does not move makes no sound
        cx, cy, radius = random.random(), random.random(), random.uniform(0.04, 0.14)
        inside = np.clip((radius - np.hypot(across - cx, down - cy)) * size_px, 0.0, 1.0)[:, :, None]
        colour = hsv_to_rgb(random.random(), random.uniform(0.2, 0.9), random.uniform(0.3, 0.9))
        picture += inside * (colour - picture)
    return picture.astype(np.float32)


def _grain(random: np.random.Generator, frames: int, size_px: int, deviation: float) -> np.ndarray:
    """Camera noise [T, H, W]: windows at random places of one larger sheet, far cheaper than fresh noise a frame."""
    sheet = random.normal(0.0, deviation, (2 * size_px, 2 * size_px)).astype(np.float32)
    places = random.integers(0, size_px, (frames, 2))
    return np.stack([sheet[a : a + size_px, b : b + size_px] for a, b in places])


def hsv_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """HSV to RGB, all in 0..1."""
    ramp = np.clip(np.abs((hue * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return (value * (1.0 - saturation + saturation * ramp)).astype(np.float32)
