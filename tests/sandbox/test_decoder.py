"""Media opened in a confined process give what they give here, and whatever happens there has an end and a name."""

import concurrent.futures
import functools
import os
import signal

import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import open_media
from avssl.media.limits import Limits
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.decoder import Decoder
from avssl.synthetic import fixtures


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    path.write_bytes(fixtures.clip("mp4-h264-aac"))
    return path


def read(media):
    frames = list(media.iter_frames(0.0, 16.0, short_side_px=64, chunk=20))
    sound = list(media.iter_audio(0.0, rate_hz=24000, channels="all", chunk_s=1.0))
    return frames, sound


@pytest.mark.parametrize("name", ["mp4-h264-aac", "mkv-hevc-flac", "webm-vp9-opus", "avi-mjpeg-pcm", "ts-mpeg2-mp2"])
def test_pictures_sound_and_facts_are_the_same(decoder, tmp_path, name):
    path = tmp_path / "clip"
    path.write_bytes(fixtures.clip(name, duration_s=2.0))
    with decoder.open(path) as there, open_media(path) as here:
        assert there.info == here.info and there.spatial == here.spatial
        (frames, sound), (frames_here, sound_here) = read(there), read(here)
    for ours, theirs in zip(frames, frames_here, strict=True):
        np.testing.assert_array_equal(ours.data, theirs.data)
        np.testing.assert_array_equal(ours.times_s, theirs.times_s)
    for ours, theirs in zip(sound, sound_here, strict=True):
        np.testing.assert_array_equal(ours.samples, theirs.samples)
        assert (ours.rate_hz, ours.start_s, ours.valid) == (theirs.rate_hz, theirs.start_s, theirs.valid)


@pytest.mark.parametrize("content", [b"", b"this is not a video" * 100, b"#EXTM3U\n/etc/passwd\n", "cut"])
def test_bad_files_get_the_same_error(decoder, tmp_path, clip, content):
    path = tmp_path / "bad.mp4"
    path.write_bytes(clip.read_bytes()[:3000] if content == "cut" else content)
    with pytest.raises(MediaError) as here, open_media(path) as media:
        assert media.info
    with pytest.raises(MediaError) as there, decoder.open(path) as media:
        assert media.info
    assert (there.value.reason, there.value.detail) == (here.value.reason, here.value.detail)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(MediaError) as there:
            decoder.open(path)
        assert there.value.reason == "unreadable"


def test_a_death_is_the_fault_of_its_file_and_the_next_one_is_read(clip):
    with Decoder() as decoder:
        with decoder.open(clip) as media:
            parts = media.iter_frames(0.0, 16.0, chunk=4)
            next(parts)
            os.kill(decoder.pid, signal.SIGKILL)
            with pytest.raises(MediaError, match=r"died \(SIGKILL\)") as caught:
                list(parts)
            assert (caught.value.reason, caught.value.path) == ("worker-died", str(clip))
            with pytest.raises(MediaError, match="has ended"):  # what was open there is gone
                media.info  # noqa: B018
        with decoder.open(clip) as media:
            assert media.info.video
        assert decoder.restarts == 1


def test_a_decoder_that_hangs_is_ended_and_named(clip):
    """Stopped in the middle: no answer will come."""
    with Decoder(limits=Limits(timeout_s=0.5)) as decoder:
        with decoder.open(clip) as media:
            os.kill(decoder.pid, signal.SIGSTOP)
            with pytest.raises(MediaError, match=r"took more than 0\.75 s") as caught:
                list(media.iter_frames(0.0, 16.0))
            assert caught.value.reason == "timeout"
        with decoder.open(clip) as media:
            assert media.info.video


@pytest.mark.parametrize("answer", [[], {"media": "no"}, {"media": [1, 2, 3]}, {"system": 5}, {"info": []}, {}])
def test_an_answer_that_cannot_be_is_the_fault_of_its_file(clip, answer):
    with Decoder() as decoder:
        decoder._server = functools.partial(lying, answer)  # a decoder that a file has taken over
        with pytest.raises(MediaError, match="an answer that cannot be"), decoder.open(clip) as media:
            assert media.info


def lying(answer, request, descriptor):
    return answer, []


def test_more_memory_than_allowed_is_a_bad_file(tmp_path):
    """Pictures of 8000 x 4000 pixels fit into 4 GiB and not into 300 MiB, of which the libraries take some."""
    path = tmp_path / "large.mp4"
    path.write_bytes(fixtures.clip("mov-mjpeg-pcm", duration_s=0.1, size_px=(4000, 8000)))
    with Decoder() as decoder, decoder.open(path) as media:
        assert media.info.video.width_px == 8000
    with Decoder(Bounds(memory_mb=300)) as decoder:
        with pytest.raises(MediaError) as caught, decoder.open(path) as media:
            list(media.iter_frames(0.0, 10.0))
        assert caught.value.reason in ("too-large", "corrupt", "worker-died")


def test_several_threads_read_side_by_side(decoder, clip):
    def sound(_):
        with decoder.open(clip) as media:
            return np.concatenate([part.samples for part in media.iter_audio(0.0, rate_hz=8000, chunk_s=0.2)], axis=1)

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(sound, range(8))
    assert first.shape == (1, 32000)
    assert all(np.array_equal(first, other) for other in others)


def test_files_do_not_pile_up(decoder, clip):
    for _ in range(100):  # more than there may be descriptors
        with decoder.open(clip) as media:
            assert media.info.audio
    assert decoder.restarts == 0
