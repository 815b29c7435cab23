"""A small random model and small clips for the tests of commands that use them."""

from pathlib import Path

import numpy as np

from avssl.media.encode import write_video


def save_tiny_model(folder: Path, *, seed: int = 0, modalities: tuple[str, ...] = ("video", "audio")) -> Path:
    """A model folder with the tiny towers at random weights."""
    import torch

    from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
    from avssl.models.folder import save_model
    from avssl.models.two_tower import TwoTower

    config = ModelConfig(
        video=TowerConfig("tiny_video") if "video" in modalities else None,
        audio=TowerConfig("tiny_audio") if "audio" in modalities else None,
        head=HeadConfig(hidden=[32], dim=16),
    )
    torch.manual_seed(seed)
    save_model(folder, TwoTower(config), config, card="# random weights, for tests\n")
    return folder


def moving_pictures(count: int, *, size_px: tuple[int, int] = (48, 64), seed: int = 0) -> np.ndarray:
    """RGB pictures [count, H, W, 3] in which a bright square wanders over a coloured ground."""
    generator = np.random.default_rng(seed)
    height, width = size_px
    pictures = np.empty((count, height, width, 3), np.uint8)
    pictures[:] = generator.integers(0, 120, 3)
    for number, picture in enumerate(pictures):
        top, left = (number * 2 + seed) % (height - 16), (number * 3) % (width - 16)
        picture[top : top + 16, left : left + 16] = generator.integers(130, 256, 3)
    return pictures


def write_clip(path: Path, duration_s: float, *, fps: int = 16, sound: str | None = "noise", seed: int = 0) -> Path:
    """A clip with moving pictures and `sound` "noise", "silence" or None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate_hz, audio = 24000, None
    if sound:
        audio = np.zeros((1, round(duration_s * rate_hz)), np.float32)
    if sound == "noise":
        samples = np.arange(audio.shape[1])
        tone = np.sin(samples * (0.02 + 0.01 * (seed % 7)) * (1 + samples / len(samples)))
        audio[0] = 0.3 * tone + 0.05 * np.random.default_rng(seed).standard_normal(len(samples))
    write_video(path, moving_pictures(round(duration_s * fps), seed=seed), fps, audio=audio, audio_rate_hz=rate_hz)
    return path
