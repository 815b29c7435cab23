"""Real clips (AVSSL_MEDIA): all can be read, twice alike, over their whole length."""

import numpy as np
import pytest

from avssl.media import open_media


def clips(media_dir):
    files = sorted((media_dir / "video").iterdir()) + sorted((media_dir / "av_labelled").glob("*/*"))
    assert len(files) > 15
    return files


def test_every_clip_is_read_from_start_to_end(media_dir):
    for path in clips(media_dir):
        with open_media(path) as media:
            info = media.info
            assert info.video is not None and 12 <= info.video.fps <= 30.1 and 4 < info.video.duration_s < 20
            found = [part.times_s for part in media.iter_frames(0.0, 4, short_side_px=32)]
            times_s = np.concatenate(found)
            assert abs(len(times_s) / 4 - info.video.duration_s) < 0.3
            assert np.abs(times_s - np.arange(len(times_s)) / 4).max() <= 1 / info.video.fps + 0.002
            if info.audio is None:
                assert "no_audio" in path.name or "noaudio" in path.name
                continue
            heard = sum(part.samples.shape[1] for part in media.iter_audio(0.0, rate_hz=16000)) / 16000
            assert heard == pytest.approx(info.audio.duration_s, abs=0.06)


def test_windows_are_the_same_twice_and_from_memory(media_dir):
    for path in clips(media_dir):
        results = []
        for source in (path, path, path.read_bytes()):
            with open_media(source) as media:
                middle_s = media.info.video.duration_s / 2
                frames = media.frames_at(middle_s + np.arange(4) / 8, short_side_px=64, pixels="yuv420p")
                sound = media.info.audio and media.audio_between(middle_s, 0.5, rate_hz=24000).samples
                results.append((frames, sound))
        for frames, sound in results[1:]:
            assert np.array_equal(frames.data, results[0][0].data)
            assert np.array_equal(frames.times_s, results[0][0].times_s)
            if sound is not None:
                assert sound.shape == (1, 12000) and np.array_equal(sound, results[0][1])


def test_the_film_with_several_streams(media_dir):
    with open_media(media_dir / "video" / "nasa_13013.mp4") as media:
        info = media.info
        assert (info.video_streams, info.audio_streams) == (2, 2)
        assert (info.video.width_px, info.video.height_px, info.audio.rate_hz) == (480, 270, 16000)


def test_first_order_ambisonics_stay_as_decoded(media_dir):
    """The chart clip's six channels are X, Y, W, nothing, Z, nothing; nothing is to the front."""
    with open_media(media_dir / "spatial" / "chart_piano-left_voice-right_gulls-up.mp4") as media:
        sound = media.audio_between(0.0, 10.0, rate_hz=48000, channels="all").samples
    x, y, w, silent, z, silent_too = (np.square(channel).mean() for channel in sound)
    assert silent < 1e-9 and silent_too < 1e-9 and x < 0.02 * w
    assert w == pytest.approx(y + z, rel=0.1)


def test_five_point_one_is_heard_in_mono_and_stereo(media_dir):
    with open_media(media_dir / "video" / "bigbuckbunny.mp4") as media:
        assert media.info.audio.layout == "5.1"
        every = media.audio_between(1.0, 2.0, rate_hz=48000, channels="all").samples
        stereo = media.audio_between(1.0, 2.0, rate_hz=48000, channels="stereo").samples
        mono = media.audio_between(1.0, 2.0, rate_hz=48000).samples
    weight = 1 + 2 * 0.5**0.5
    left = (every[0] + 0.5**0.5 * (every[2] + every[4])) / weight
    assert np.abs(stereo[0] - left).max() < 0.01  # AAC's noise differs from call to call
    assert np.abs(mono[0] - stereo.mean(axis=0)).max() < 0.01
