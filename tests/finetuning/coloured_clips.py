"""Small clips whose class is a colour and a pitch: anything that looks or listens tells them apart."""

from pathlib import Path

import numpy as np

from avssl.media.encode import write_video

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 50, 210)}
PITCH_HZ = {"red": 300.0, "green": 1200.0, "blue": 4500.0}


def write_coloured(path: Path, colour: str, *, seed: int = 0, duration_s: float = 1.5, sound: bool = True) -> Path:
    """A clip of this colour, with noise, and a tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    frames = np.array(COLOURS[colour]) + random.normal(0, 25, (round(duration_s * 8), 48, 64, 1))
    audio = None
    if sound:
        time_s = np.arange(round(duration_s * 24000)) / 24000
        tone = 0.3 * np.sin(2 * np.pi * PITCH_HZ[colour] * (1 + 0.05 * random.random()) * time_s)
        audio = (tone + 0.02 * random.standard_normal(len(time_s))).astype(np.float32)[None]
    write_video(path, frames.clip(0, 255).astype(np.uint8), 8, audio=audio, audio_rate_hz=24000 if sound else None)
    return path


def write_folders(root: Path, files: int = 4, colours: tuple[str, ...] = ("red", "green", "blue"), **how) -> Path:
    """root/COLOUR/N.mp4."""
    for place, colour in enumerate(colours):
        for number in range(files):
            write_coloured(root / colour / f"{number}.mp4", colour, seed=10 * place + number, **how)
    return root
