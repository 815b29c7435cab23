"""Writing: the same bytes each time, on any number of threads; clear errors."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest

from avssl.errors import UsageError
from avssl.media import Frames, fastdecode_options, open_media, probe, write_video
from avssl.synthetic import fixtures

BUSY = [np.random.default_rng(number).integers(0, 255, (8, 12, 3)).astype(np.uint8).repeat(16, 0).repeat(16, 1)
        for number in range(20)]  # fmt: skip


@pytest.mark.parametrize("name", fixtures.RECIPES)
def test_two_writings_give_the_same_bytes(name):
    assert fixtures.clip(name, duration_s=0.6) == fixtures.clip(name, duration_s=0.6)


@pytest.mark.parametrize("options", [{}, fastdecode_options(), {"preset": "veryfast", "x264-params": "bframes=3"}])
def test_x264_does_not_depend_on_memory_or_threads(options):
    """Whatever was in memory before, and however many cores the process may use."""
    results, junk = set(), []
    for number in range(8):
        junk.append(np.full(1000 + 400_000 * (number % 3), number, np.uint8))
        buffer = io.BytesIO()
        write_video(buffer, BUSY, 25, container="mp4", video_options=options)
        results.add(buffer.getvalue())
    assert len(results) == 1
    code = (
        "import hashlib, io, os, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "sys.path.insert(0, 'tests/media')\n"
        "from test_media_encode import BUSY, write_video\n"
        "buffer = io.BytesIO()\n"
        f"write_video(buffer, BUSY, 25, container='mp4', video_options={options!r})\n"
        "sys.stdout.buffer.write(buffer.getvalue())"
    )
    if hasattr(os, "sched_setaffinity"):
        root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
        one_core = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=root).stdout
        assert one_core in results


def test_a_written_clip_reads_back(tmp_path):
    path = tmp_path / "clip.mp4"
    pictures = [fixtures.picture(number) for number in range(32)]
    chunks = [Frames(np.stack(pictures[:20]), np.arange(20) / 16), *pictures[20:]]
    sound = fixtures.sound(2.0, 24000, 2, clicks_s=(0.5,))
    assert write_video(path, chunks, 16, audio=sound, audio_rate_hz=24000) == 32
    info = probe(path)
    assert (info.video.fps, info.video.duration_s, info.audio.rate_hz, info.audio.channels) == (16, 2, 24000, 2)
    with open_media(path) as media:
        found = media.frames_at(np.arange(32) / 16)
        assert np.allclose(found.times_s, np.arange(32) / 16)
        assert [fixtures.number_of(picture) for picture in found.data] == list(range(32))
        heard = media.audio_between(0.0, 2.0, rate_hz=24000, channels="stereo").samples
    assert fixtures.click_times_s(heard[1], 24000) == pytest.approx([0.5], abs=3e-4)


@pytest.mark.parametrize("fps", [12.5, 15.25, 23.976, 30000 / 1001, 59.94])
def test_uneven_rates(fps):
    buffer = io.BytesIO()
    write_video(buffer, BUSY, fps, container="mp4", video_options={"preset": "veryfast"})
    with open_media(buffer.getvalue()) as media:
        assert media.info.video.fps == pytest.approx(fps, rel=1e-4)
        times_s = np.concatenate([part.times_s for part in media.iter_frames(0.0, media.info.video.fps)])
    assert np.allclose(times_s, np.arange(20) / fps, atol=2e-3) and len(times_s) == 20


def test_wrong_wishes_are_named(tmp_path):
    with pytest.raises(UsageError, match="container"):
        write_video(tmp_path / "clip.xyz", BUSY, 25)
    with pytest.raises(UsageError, match="no picture"):
        write_video(tmp_path / "clip.mp4", [], 25)
    with pytest.raises(UsageError, match="rate"):
        write_video(tmp_path / "clip.mp4", BUSY, 25, audio=np.zeros((1, 100)))
    with pytest.raises(UsageError, match="even"):
        write_video(tmp_path / "clip.mp4", [np.zeros((95, 127, 3), np.uint8)], 25)
