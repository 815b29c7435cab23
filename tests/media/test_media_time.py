"""Pictures and sound come from the right time: in every container, wherever the reading starts."""

import functools
import io

import av
import numpy as np
import pytest

from avssl.errors import MediaError, UsageError
from avssl.media import MediaWriter, open_media
from avssl.media.picture import Painter
from avssl.synthetic import fixtures

clip = functools.cache(fixtures.clip)
FPS = 25
WITH_SOUND = [name for name, recipe in fixtures.RECIPES.items() if recipe.audio]


def first_flash_s(media, times_s):
    """Wanted times at which a flash comes into view."""
    shown = [fixtures.is_flash(picture) for picture in media.frames_at(times_s, short_side_px=48).data]
    return [times_s[k] for k in range(1, len(shown)) if shown[k] and not shown[k - 1]]


@pytest.mark.parametrize("name", WITH_SOUND)
def test_flash_and_click_agree_within_a_picture(name):
    with open_media(clip(name)) as media:
        flashes_s = first_flash_s(media, np.arange(0, 3.5, 0.005))
        sound = media.audio_between(0.0, 3.5, rate_hz=24000)
    clicks_s = fixtures.click_times_s(sound.samples[0], 24000)
    assert len(flashes_s) == len(clicks_s) == len(fixtures.FLASHES_S)
    half = 0.02 if not name.startswith("avi") else 0.03  # AVI cannot mark the 25 ms of delay that LAME adds
    assert np.allclose(flashes_s, clicks_s, atol=half), "half a picture"
    # The fragmented file's own time stamps begin with an empty stretch of 80 ms; ASF delays both by WMA's 46 ms.
    if name not in ("mp4-h264-fragmented", "asf-wmv2-wmav2"):
        assert np.allclose(flashes_s, fixtures.FLASHES_S, atol=1 / FPS + 0.005), "one picture"
        assert np.allclose(clicks_s, fixtures.FLASHES_S, atol=1 / FPS)


@pytest.mark.parametrize(
    "name",
    ["mp4-h264-aac", "mp4-h264-longgop-mp3", "mp4-av1-opus", "mov-h264-pcm", "mkv-h264-opus", "mkv-mpeg4-mp3",
     "mkv-hevc-flac", "webm-vp9-opus"],
)  # fmt: skip
def test_encoder_delay_is_cut(name):
    """Where the container marks the encoder's delay, a click is where it was put, to a fifth of a millisecond."""
    with open_media(clip(name)) as media:
        sound = media.audio_between(0.0, 4.0, rate_hz=48000)
    assert np.allclose(fixtures.click_times_s(sound.samples[0], 48000), fixtures.FLASHES_S, atol=2e-4)


@functools.cache
def decoded_from_start(name):
    """Every picture of a clip as FFmpeg decodes them one after the other, with their times of media time."""
    data = clip(name)
    with open_media(data) as media:
        zero_s = float(media._zero_s)
    painter = Painter("rgb24", short_side_px=None, size_px=None)
    pictures, stamps = [], []
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            picture = np.empty(painter.shape(frame), np.uint8)
            painter.paint(frame, picture, name)
            pictures.append(picture)
            stamps.append(frame.pts)
        tick_s = float(stream.time_base)
    if name.startswith("avi"):  # the order of pictures is right, FFmpeg's times for it are not (packed or new B-frames)
        stamps = [stamp - stamps[0] for stamp in sorted(stamps)]
    return np.array(stamps) * tick_s - zero_s, pictures, min(5e-4, tick_s / 2)


@pytest.mark.parametrize("name", fixtures.RECIPES)
def test_any_window_equals_decoding_from_the_start(name):
    """Bit for bit, for random windows, on a fresh file and on one that was read before."""
    times_s, pictures, tolerance_s = decoded_from_start(name)
    assert [fixtures.number_of(picture) for picture in pictures] == list(range(100))
    random = np.random.default_rng(1)
    with open_media(clip(name)) as used:
        for number in range(18):
            start_s, count = random.uniform(times_s[0], times_s[-1]), random.integers(1, 10)
            wanted_s = np.minimum(start_s + np.arange(count) * random.choice([0.02, 0.04, 0.0625, 0.7]), times_s[-1])
            if number % 3 == 0:
                wanted_s = np.sort(random.choice(times_s, count))
            if number % 2:
                found = used.frames_at(wanted_s)
            else:
                with open_media(clip(name)) as fresh:
                    found = fresh.frames_at(wanted_s)
            places = np.maximum(np.searchsorted(times_s, wanted_s + tolerance_s + 1e-9, side="right") - 1, 0)
            assert np.allclose(found.times_s, times_s[places])
            for picture, place in zip(found.data, places, strict=True):
                assert np.array_equal(picture, pictures[place])


@pytest.mark.parametrize(
    "name", ["mp4-h264-aac", "mkv-h264-opus", "avi-mpeg4-bframes-mp3", "webm-vp9-opus", "ts-h264-aac"]
)
@pytest.mark.parametrize("fps", [5, 16, 25, 60])
def test_iterating_equals_asking(name, fps):
    with open_media(clip(name)) as media:
        start_s = media.info.video.start_s
        parts = list(media.iter_frames(start_s, fps, chunk=7))
        assert all(len(part.data) == 7 for part in parts[:-1])
        pictures = np.concatenate([part.data for part in parts])
        end_s = media.info.video.start_s + media.info.video.duration_s
        asked = media.frames_at(start_s + np.arange(len(pictures)) / fps)
    assert abs(len(pictures) / fps - (end_s - start_s)) <= 1 / fps + 0.08  # AVI and TS count a picture more or less
    assert np.array_equal(pictures, asked.data)
    assert np.array_equal(np.concatenate([part.times_s for part in parts]), asked.times_s)


def test_iterators_of_picture_and_sound_run_side_by_side():
    with open_media(clip("mkv-h264-opus")) as media:
        whole = media.audio_between(0.0, 4.0, rate_hz=16000).samples
        sound = media.iter_audio(0.0, end_s=4.0, rate_hz=16000, chunk_s=0.5)
        numbers, pieces = [], []
        for frames in media.iter_frames(0.0, 25, end_s=4.0, chunk=10):
            numbers += [fixtures.number_of(picture) for picture in frames.data]
            if (piece := next(sound, None)) is not None:
                pieces.append(piece.samples)
    assert numbers == list(range(100))
    assert np.allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_uneven_pictures_are_found_by_time(container):
    shown_s = np.cumsum([0, 0.01, 0.5, 0.033, 0.2, 1.5, 0.04, 0.04, 0.9, 0.02])
    with open_media(fixtures.variable_rate(shown_s, container)) as media:
        wanted_s = np.sort(np.concatenate([shown_s, shown_s[1:] - 0.002, np.arange(0, shown_s[-1], 0.11)]))
        found = media.frames_at(wanted_s)
    places = np.searchsorted(shown_s, wanted_s + 5e-4, side="right") - 1
    assert [fixtures.number_of(picture) for picture in found.data] == places.tolist()
    assert np.allclose(found.times_s, shown_s[places], atol=6e-4)


def test_times_that_repeat_and_times_before_the_first_picture():
    with open_media(clip("mp4-h264-aac")) as media:
        found = media.frames_at([-1.0, 0.0, 0.5, 0.5, 0.5, 0.52])
        assert [fixtures.number_of(picture) for picture in found.data] == [0, 0, 12, 12, 12, 13]
        assert len(media.frames_at([]).data) == 0


def test_times_that_decrease_are_refused():
    with open_media(clip("mp4-h264-aac")) as media, pytest.raises(UsageError, match="decrease"):
        media.frames_at([1.0, 0.5])


def test_the_last_picture_stays_for_half_a_second_and_no_longer():
    with open_media(clip("mp4-h264-aac")) as media:
        assert fixtures.number_of(media.frames_at([4.45]).data[0]) == 99
        with pytest.raises(MediaError) as caught:
            media.frames_at([1.0, 4.6])
        assert caught.value.reason == "out-of-range" and "4.000" in str(caught.value)


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_a_late_sound_stays_late(container):
    """Streams that start apart keep their distance; media time begins with the earlier one."""
    buffer = io.BytesIO()
    with MediaWriter(buffer, container=container) as writer:
        video = writer.add_video(fixtures.SIZE_PX, FPS, options={"preset": "veryfast"})
        sound = writer.add_audio(48000, 1, codec="flac", start_s=0.5)
        for number in range(50):
            video.write(fixtures.picture(number, flash=number == 25))
        sound.write(fixtures.sound(1.5, 48000, clicks_s=(0.5,)))
    with open_media(buffer.getvalue()) as media:
        assert first_flash_s(media, np.arange(0, 1.9, 0.01)) == pytest.approx([1.0], abs=0.011)
        found = media.audio_between(0.0, 2.0, rate_hz=48000)
        assert fixtures.click_times_s(found.samples[0], 48000) == pytest.approx([1.0], abs=0.002)
        assert found.valid[0] / 48000 == pytest.approx(0.5, abs=0.002) and not found.samples[0, : found.valid[0]].any()
        assert media.info.audio.start_s == pytest.approx(0.5, abs=0.002)


def test_the_best_streams_are_chosen():
    with open_media(fixtures.several_streams()) as media:
        info = media.info
        assert (info.video_streams, info.audio_streams) == (2, 2)
        assert (info.video.width_px, info.video.height_px, info.audio.channels) == (128, 96, 2)
        assert fixtures.number_of(media.frames_at([0.4]).data[0]) == 10
        sound = media.audio_between(0.0, 3.0, rate_hz=24000)
        assert fixtures.click_times_s(sound.samples[0], 24000) == pytest.approx([1.0, 2.4], abs=0.001)


def test_pictures_alone_and_sound_alone():
    with open_media(clip("mp4-h264-fastdecode")) as media:
        assert media.info.audio is None
        with pytest.raises(MediaError) as caught:
            media.audio_between(0, 1, rate_hz=16000)
        assert caught.value.reason == "no-audio"
    with open_media(fixtures.surround("stereo")) as media:
        assert media.info.video is None
        with pytest.raises(MediaError) as caught:
            media.frames_at([0.0])
        assert caught.value.reason == "no-video"


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
@pytest.mark.parametrize("name", ["mp4-h264-aac", "mkv-h264-opus", "mp4-h264-fastdecode"])
def test_other_decoders_give_the_same_pictures(tmp_path, name, backend):
    path = tmp_path / "clip"
    path.write_bytes(clip(name))
    wanted_s = np.sort(np.random.default_rng(0).uniform(0, 3.95, 8))
    with open_media(path) as ours, open_media(path, backend=backend) as other:
        expected = ours.frames_at(wanted_s, short_side_px=48)
        try:
            found = other.frames_at(wanted_s, short_side_px=48)
        except UsageError as error:
            pytest.skip(str(error))
        assert np.allclose(found.times_s, expected.times_s, atol=1e-5)
        assert [fixtures.number_of(p) for p in found.data] == [fixtures.number_of(p) for p in expected.data]
        assert np.abs(found.data.astype(int) - expected.data).mean() < 3
        with pytest.raises(MediaError):
            other.frames_at([9.0])


def test_an_unknown_decoder_is_named():
    with open_media(clip("mp4-h264-aac"), backend="magic") as media, pytest.raises(UsageError, match="decord"):
        media.frames_at([0.0])
