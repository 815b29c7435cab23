"""The stems of a real song: a file of five streams of sound, the mix and then each stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avssl.media import open_media

STEMS = ("drums", "bass", "other", "vocals")  # in the order of the file, after the mix


def read_stems(media: Path, rate_hz: int, duration_s: float) -> np.ndarray:
    """[4, S] float32, mono: `duration_s` from the middle of the song, or all of a shorter one."""
    (path,) = sorted((media / "music_stems").glob("*.stem.mp4"))
    with open_media(path) as mix:
        whole_s = mix.info.duration_s
    duration_s = min(duration_s, whole_s)
    start_s = (whole_s - duration_s) / 2
    return np.stack([_read(path, 1 + number, rate_hz, start_s, duration_s) for number in range(len(STEMS))])


def _read(path: Path, stream: int, rate_hz: int, start_s: float, duration_s: float) -> np.ndarray:
    with open_media(path, audio_stream=stream) as stem:
        return stem.audio_between(start_s, duration_s, rate_hz=rate_hz, channels="mono").samples[0]
