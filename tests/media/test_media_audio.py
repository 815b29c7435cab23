"""Sound: rates, downmix, gaps, and that any window is a cut from the whole."""

import functools
import io

import av
import numpy as np
import pytest
import soxr

from avssl.errors import UsageError
from avssl.media import MediaWriter, open_media
from avssl.media.downmix import matrix
from avssl.synthetic import fixtures

clip = functools.cache(fixtures.clip)


def sweep(rate_hz, duration_s=4.0):
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * time_s) * time_s)).astype(np.float32)[None]


@functools.cache
def sweep_file(container, codec, rate_hz):
    buffer = io.BytesIO()
    with MediaWriter(buffer, container=container) as writer:
        writer.add_audio(rate_hz, 1, codec=codec).write(sweep(rate_hz))
    return buffer.getvalue()


# How far a window may be from the whole: lossless and most codecs not at all, beyond the rounding of the resampler;
# AAC fills bands with noise, whose generator goes on from call to call.
KINDS = [("mp4", "aac", 44100, 6e-3), ("mp4", "libmp3lame", 44100, 1e-5), ("matroska", "libopus", 48000, 1e-5),
         ("matroska", "flac", 44100, 1e-5), ("wav", "pcm_s16le", 22050, 1e-5), ("flac", "flac", 48000, 1e-5),
         ("avi", "pcm_s16le", 44100, 1e-5), ("ogg", "libopus", 48000, 2e-3), ("mpegts", "mp2", 48000, 1e-4),
         ("mp3", "libmp3lame", 44100, 1e-5)]  # fmt: skip


@pytest.mark.parametrize(("container", "codec", "source_hz", "tolerance"), KINDS)
@pytest.mark.parametrize("rate_hz", [24000, 44100])
def test_any_window_is_a_cut_from_the_whole(container, codec, source_hz, tolerance, rate_hz):
    with open_media(sweep_file(container, codec, source_hz)) as media:
        whole = media.audio_between(0.0, 3.9, rate_hz=rate_hz).samples
        parts = list(media.iter_audio(0.0, end_s=3.9, rate_hz=rate_hz, chunk_s=0.37))
        joined = np.concatenate([part.samples for part in parts], axis=1)
        assert [part.start_s for part in parts] == pytest.approx([k * 0.37 for k in range(len(parts))], abs=1e-4)
        assert joined.shape == whole.shape and np.abs(joined - whole).max() < tolerance
        random = np.random.default_rng(0)
        for start_s in random.uniform(0, 3.4, 6):
            window = media.audio_between(start_s, 0.4, rate_hz=rate_hz)
            begin = round(start_s * rate_hz)
            assert window.valid == (0, round(0.4 * rate_hz)) and window.start_s == begin / rate_hz
            assert np.abs(window.samples - whole[:, begin : begin + round(0.4 * rate_hz)]).max() < tolerance


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 48000])
def test_resampling_is_right_in_time_and_level(rate_hz):
    with open_media(sweep_file("wav", "pcm_s16le", 22050)) as media:
        found = media.audio_between(0.0, 4.0, rate_hz=rate_hz).samples[0]
    expected = soxr.resample(sweep(22050)[0], 22050, rate_hz, quality="HQ")
    assert np.abs(found - expected).max() < 3e-4
    middle = slice(rate_hz // 4, rate_hz * 3)
    assert np.abs(found[middle] - sweep(rate_hz)[0][middle]).max() < 2e-3


def test_outside_the_stream_there_is_marked_silence():
    with open_media(sweep_file("wav", "pcm_s16le", 22050)) as media:
        before = media.audio_between(-0.5, 1.0, rate_hz=16000)
        assert before.valid == (8000, 16000) and not before.samples[:, :7990].any() and before.samples[:, 8100:].any()
        after = media.audio_between(3.75, 1.0, rate_hz=16000)
        assert after.valid == (0, 4000) and not after.samples[:, 4010:].any() and after.samples.shape == (1, 16000)
        beyond = media.audio_between(100.0, 1.0, rate_hz=16000)
        assert beyond.valid[0] == beyond.valid[1] and not beyond.samples.any()
        assert media.audio_between(1.0, 0.0, rate_hz=16000).samples.shape == (1, 0)
        assert sum(part.samples.shape[1] for part in media.iter_audio(1.0, rate_hz=16000, chunk_s=0.7)) == 48000


def test_wrong_wishes_are_named():
    with open_media(sweep_file("wav", "pcm_s16le", 22050)) as media:
        for keywords in ({"rate_hz": 0}, {"rate_hz": 16000, "channels": "both"}, {"rate_hz": -1}):
            with pytest.raises(UsageError):
                media.audio_between(0.0, 1.0, **keywords)
        with pytest.raises(UsageError):
            media.audio_between(0.0, -1.0, rate_hz=16000)


LAYOUTS = {"mono": 1, "stereo": 2, "quad": 4, "5.1": 6, "7.1": 8}


def tone_levels(samples, count, rate_hz=48000):
    """Amplitude of each of the fixture's tones in each channel: [C, count]."""
    spectrum = np.abs(np.fft.rfft(samples[:, : rate_hz // 2] * np.hanning(rate_hz // 2), axis=1)) * 4 / (rate_hz // 2)
    return spectrum[:, [150 * (number + 1) for number in range(count)]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", ["flac", "libopus"])
def test_all_channels_come_in_order_and_untouched(layout, codec):
    count = LAYOUTS[layout]
    with open_media(fixtures.surround(layout, codec)) as media:
        info = media.info.audio
        assert (info.channels, info.layout) == (count, layout)
        sound = media.audio_between(0.1, 0.8, rate_hz=48000, channels="all").samples
    levels = tone_levels(sound, count)
    if codec == "libopus" and count >= 6:  # the encoder low-passes the low frequency channel (the fourth)
        levels[3, 3] = 0.5
    assert np.allclose(levels, 0.5 * np.eye(count), atol=0.06)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_downmix(layout, channels):
    """By hand: front 1, centre, side and back 0.707, no low frequency, each side divided by its sum."""
    half = 0.5**0.5
    left, right = {
        "mono": ([1], [1]),
        "stereo": ([1, 0], [0, 1]),
        "quad": ([1, 0, half, 0], [0, 1, 0, half]),
        "5.1": ([1, 0, half, 0, half, 0], [0, 1, half, 0, 0, half]),
        "7.1": ([1, 0, half, 0, half, 0, half, 0], [0, 1, half, 0, 0, half, 0, half]),
    }[layout]
    rows = np.stack([np.array(side) / sum(side) for side in (left, right)])
    if channels == "mono":
        rows = rows.mean(axis=0, keepdims=True)
    with open_media(fixtures.surround(layout)) as media:
        sound = media.audio_between(0.1, 0.8, rate_hz=48000, channels=channels).samples
    assert np.allclose(tone_levels(sound, LAYOUTS[layout]), 0.5 * rows, atol=1e-3)


def test_downmix_never_clips():
    for layout in ("mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)",
                   "hexadecagonal", "downmix", "22.2"):  # fmt: skip
        names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
        for channels in ("mono", "stereo"):
            rows = matrix(names, channels)
            if rows is not None:
                assert (rows >= 0).all() and rows.sum(axis=1) == pytest.approx(1)
    assert matrix(("AMBI0", "AMBI1", "AMBI2", "AMBI3"), "mono").tolist() == [[1, 0, 0, 0]]
    assert matrix(("?", "?", "?"), "mono") == pytest.approx(np.full((1, 3), 1 / 3))


def test_full_scale_surround_stays_within_full_scale():
    buffer = io.BytesIO()
    with MediaWriter(buffer, container="wav") as writer:
        writer.add_audio(48000, layout="5.1", codec="pcm_s16le").write(np.ones((6, 24000)))
    with open_media(buffer.getvalue()) as media:
        for channels in ("mono", "stereo"):
            assert np.abs(media.audio_between(0, 0.5, rate_hz=48000, channels=channels).samples).max() <= 1


@pytest.mark.parametrize("hole_s", [0.02, 0.3, 2.5])
def test_a_hole_in_the_time_stamps_is_silence(hole_s):
    """What comes after a hole is at its time; a hole of less than 50 ms is taken for rounding."""
    rate_hz, buffer = 16000, io.BytesIO()
    with MediaWriter(buffer, container="matroska") as writer:
        track = writer.add_audio(rate_hz, 1, codec="pcm_s16le")
        track.write(fixtures.sound(1.024, rate_hz, clicks_s=(0.5,)))
        track.skip(hole_s)
        track.write(fixtures.sound(1.0, rate_hz, clicks_s=(0.2,)))
    with open_media(buffer.getvalue()) as media:
        second_s = 1.224 + (hole_s if hole_s > 0.05 else 0)
        sound = media.audio_between(0.0, second_s + 0.5, rate_hz=rate_hz)
        assert fixtures.click_times_s(sound.samples[0], rate_hz) == pytest.approx([0.5, second_s], abs=0.002)
        parts = [part.samples for part in media.iter_audio(0.0, rate_hz=rate_hz, chunk_s=0.25)]
        joined = np.concatenate(parts, axis=1)
        assert np.array_equal(joined[:, : sound.samples.shape[1]], sound.samples[:, : joined.shape[1]])
        if hole_s < 0.05:
            return
        late = media.audio_between(second_s - 0.1, 0.3, rate_hz=rate_hz)
        assert fixtures.click_times_s(late.samples[0], rate_hz) == pytest.approx([0.1], abs=0.002)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw", "alac"]
)
def test_sample_formats(codec):
    """Full scale is 1 in all of them, and silence is 0."""
    buffer, wave = io.BytesIO(), sweep(48000, 0.5)
    with MediaWriter(buffer, container="mov" if codec == "alac" else "wav") as writer:
        writer.add_audio(48000, 2, codec=codec).write(np.concatenate([wave, 0 * wave]))
    with open_media(buffer.getvalue()) as media:
        found = media.audio_between(0.0, 0.5, rate_hz=48000, channels="all").samples
    assert found.dtype == np.float32
    tolerance = {"pcm_u8": 1 / 128, "pcm_mulaw": 0.02}.get(codec, 1e-4)
    assert np.abs(found[0] - wave[0]).max() <= tolerance and np.abs(found[1]).max() <= tolerance
