"""The stems of a real song. Their file holds five streams of sound, of which `avssl.media` would choose one: so the
decoder is used here directly, on a file that is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

STEMS = ("drums", "bass", "other", "vocals")  # in the order of the file, after the mix


def read_stems(media: Path, rate_hz: int, duration_s: float) -> np.ndarray:
    """[4, S] float32, mono: `duration_s` from the middle of the song."""
    (path,) = sorted((media / "music_stems").glob("*.stem.mp4"))
    stems = [_read(path, number, rate_hz) for number in range(1, 1 + len(STEMS))]
    length = min(map(len, stems))
    samples = min(length, round(duration_s * rate_hz))
    start = (length - samples) // 2
    return np.stack([stem[start : start + samples] for stem in stems])


def _read(path: Path, stream: int, rate_hz: int) -> np.ndarray:
    import av

    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=stream) for out in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in [*frames, *resampler.resample(None)]])
