"""Small real shards whose content tells the time: grey level of a frame = number, value of an audio sample = moment."""

from pathlib import Path

import numpy as np
import pytest

from avssl.media.encode import write_video
from avssl.shards import BuildOptions, ShardSet
from avssl.shards.build import build
from avssl.shards.sources import list_sources

RATE_HZ, FPS, SHORT_SIDE = 24000, 16, 48
OPTIONS = BuildOptions(clip_s=2.0, min_clip_s=0.5, short_side_px=SHORT_SIDE, fps=FPS, shard_clips=3)


def grey(frame: int) -> int:
    """Level of the frame of this number in a source (of at most 6 s)."""
    return 30 + 2 * frame


def ramp(seconds: float) -> np.ndarray:
    """Sound [1, S] whose value at t seconds is t / 10."""
    return np.arange(round(seconds * RATE_HZ), dtype=np.float32)[None] / RATE_HZ / 10


def write_source(path: Path, seconds: float, height: int, width: int, sound_s: float | None) -> None:
    frames = (np.full((height, width, 3), grey(k), np.uint8) for k in range(round(seconds * FPS)))
    audio = None if sound_s is None else ramp(sound_s)
    write_video(
        path, frames, FPS, audio=audio, audio_rate_hz=RATE_HZ, container="matroska", audio_codec="flac",
        video_options={"preset": "veryfast", "crf": "10"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_source(folder / "a_long.mkv", 6, 48, 86, 6)
    write_source(folder / "b_portrait.mkv", 4, 86, 48, 4)
    write_source(folder / "c_short.mkv", 0.75, 48, 64, 0.75)
    write_source(folder / "d_silent.mkv", 2, 50, 48, None)
    write_source(folder / "e_panorama.mkv", 2, 48, 200, 2)
    write_source(folder / "f_odd.mkv", 4, 54, 50, 4)
    return folder


@pytest.fixture(scope="session")
def shards(sources, tmp_path_factory) -> Path:
    """Rows: a 0-2, b 3-4, c 5, d 6 (no sound), e 7, f 8-9; three to a shard."""
    out = tmp_path_factory.mktemp("packed") / "set"
    build(list_sources(sources), out, OPTIONS)
    assert len(ShardSet.open(out)) == 10
    return out


@pytest.fixture(scope="session")
def copied(sources, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("copied") / "set"
    build(list_sources(sources), out, BuildOptions(copy=True))
    return out
