"""Cut and flipped files: an error with its reason, or the whole truth; never fewer pictures without a word."""

import functools
import io

import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import MediaWriter, decode_flac, encode_flac, open_media
from avssl.synthetic import fixtures

clip = functools.cache(fixtures.clip)
# Containers that tell how long they are: in an index at the front, or in the sizes of their parts.
TELLING = ["mp4-h264-faststart", "mp4-h264-fragmented", "mkv-h264-opus", "mkv-hevc-flac", "webm-vp9-opus",
           "webm-av1-opus", "avi-mpeg4-mp3", "avi-mpeg4-bframes-mp3", "avi-mjpeg-pcm"]  # fmt: skip


def reason_of(call):
    with pytest.raises(MediaError) as caught:
        call()
    return caught.value.reason


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("fraction", [0.35, 0.6, 0.9])
def test_a_cut_file_gives_what_it_has_and_says_what_it_has_not(name, fraction):
    with open_media(fixtures.truncated(clip(name), fraction)) as media:
        found = media.frames_at([0.2, 0.4])
        assert np.allclose(found.times_s, [0.2, 0.4], atol=0.09)
        assert media.audio_between(0.0, 0.5, rate_hz=24000).valid == (0, 12000)
        assert reason_of(lambda: list(media.iter_frames(0.0, 25))) == "truncated"
        assert reason_of(lambda: list(media.iter_audio(0.0, rate_hz=24000))) == "truncated"
        if fraction < 0.9:  # what is missing at the very end need not be the last picture
            assert reason_of(lambda: media.frames_at([0.2, 3.99])) == "truncated"
        assert reason_of(lambda: media.audio_between(3.0, 1.2, rate_hz=24000)) == "truncated"


@pytest.mark.parametrize("name", ["mp4-h264-aac", "mov-h264-pcm", "mp4-hevc-aac"])
@pytest.mark.parametrize("fraction", [0.35, 0.97])
def test_a_file_cut_before_its_index_cannot_be_opened(name, fraction):
    assert reason_of(lambda: open_media(fixtures.truncated(clip(name), fraction))) == "truncated"


def test_the_last_picture_is_missed(tmp_path):
    """One packet less than the header promises."""
    data = clip("mp4-h264-fastdecode")
    data = data[: data.index(b"moov") - 4]
    assert reason_of(lambda: open_media(data[:-1])) == "truncated"
    recipe = fixtures.Recipe("mp4", audio=None, video_options={"bf": "0"}, muxer_options={"movflags": "faststart"})
    whole = fixtures.clip(recipe)
    with open_media(whole[:-4]) as media:
        assert reason_of(lambda: list(media.iter_frames(0.0, 25))) == "truncated"
        assert reason_of(lambda: media.frames_at([3.97])) == "truncated"
        assert fixtures.number_of(media.frames_at([3.93]).data[0]) == 98


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_sound_longer_than_pictures_is_no_damage(container):
    """And pictures longer than sound neither: headers of whole files are believed only as far as they reach."""
    for video_s, sound_s in ((2.0, 2.3), (2.0, 6.0), (3.0, 1.0)):
        buffer = io.BytesIO()
        with MediaWriter(buffer, container=container) as writer:
            video = writer.add_video(fixtures.SIZE_PX, 25, options={"preset": "veryfast"})
            sound = writer.add_audio(48000, 1, codec="aac")
            for number in range(round(video_s * 25)):
                video.write(fixtures.picture(number))
            sound.write(fixtures.sound(sound_s, 48000))
        with open_media(buffer.getvalue()) as media:
            assert sum(len(part.data) for part in media.iter_frames(0.0, 25)) == round(video_s * 25)
            assert fixtures.number_of(media.frames_at([video_s + 0.4]).data[0]) == video_s * 25 - 1
            assert reason_of(lambda m=media, s=video_s: m.frames_at([s + 0.6])) == "out-of-range"
            heard_s = sum(part.samples.shape[1] for part in media.iter_audio(0.0, rate_hz=24000)) / 24000
            assert heard_s == pytest.approx(sound_s, abs=0.03)
            first, last = media.audio_between(sound_s + 1, 1.0, rate_hz=24000).valid
            assert first == last
            assert media.info.duration_s == pytest.approx(max(video_s, sound_s), abs=0.05)


@pytest.mark.parametrize(
    "name",
    ["mp4-h264-faststart", "mkv-h264-opus", "mkv-mpeg4-mp3", "avi-mpeg4-bframes-mp3", "ts-h264-aac", "flv-h264-aac",
     "mp4-h264-fragmented", "webm-vp9-opus", "mkv-hevc-flac"],
)  # fmt: skip
def test_flipped_bits_never_shorten_the_answer(name):
    """Damage that the decoder can notice is an error; what it cannot notice still has its full number of pictures."""
    whole = clip(name)
    with open_media(whole) as media:
        expected = sum(len(part.data) for part in media.iter_frames(0.0, 25))
    errors = 0
    for seed in range(12):
        try:
            with open_media(fixtures.bit_flipped(whole, 6, seed=seed, begin=0.1)) as media:
                found = np.concatenate([part.times_s for part in media.iter_frames(0.0, 25)])
                sound = media.audio_between(0.0, 3.9, rate_hz=24000)
            assert abs(len(found) - expected) <= 1 or name.startswith(
                ("ts", "flv")
            )  # which do not say how long they are
            assert np.diff(found).max() < 0.13 and sound.samples.shape == (1, 93600)
        except MediaError as error:
            errors += 1
            assert error.reason in ("corrupt", "truncated", "too-large", "not-media", "forbidden-codec", "empty")
    assert errors >= (0 if name == "webm-vp9-opus" else 3), "VP9 can notice almost nothing; the others do"


def test_a_zeroed_stretch_in_h264_is_corrupt():
    data = bytearray(clip("mp4-h264-faststart"))
    middle = len(data) // 2
    data[middle : middle + 6000] = bytes(6000)
    with open_media(bytes(data)) as media:
        assert reason_of(lambda: list(media.iter_frames(0.0, 25))) == "corrupt"


def test_a_damaged_sound_is_corrupt():
    data = bytearray(fixtures.surround("stereo", "flac", "matroska"))
    middle = len(data) // 2
    data[middle : middle + 30] = bytes(30)
    with open_media(bytes(data)) as media:
        assert reason_of(lambda: list(media.iter_audio(0.0, rate_hz=48000))) == "corrupt"


def test_random_bytes_behind_any_magic_do_not_crash():
    random = np.random.default_rng(0)
    for name in ("mp4-h264-aac", "mkv-h264-opus", "avi-mpeg4-mp3", "ts-h264-aac", "flv-h264-aac", "webm-vp8-opus"):
        for keep in (40, 400, 4000):
            data = clip(name)[:keep] + random.bytes(20000)
            with pytest.raises(MediaError), open_media(data) as media:
                media.frames_at([0.0, 3.0])
                media.audio_between(0.0, 3.0, rate_hz=16000)
                media.frames_at([0.0, 60.0])


def test_flac_bytes():
    samples = fixtures.sound(1.0, 24000, 2, clicks_s=(0.25,))
    data = encode_flac(samples, 24000)
    whole, rate_hz = decode_flac(data)
    assert rate_hz == 24000 and whole.dtype == np.float32 and np.abs(whole - samples).max() <= 1 / 32768
    part, _ = decode_flac(data, 0.25, 0.5)
    assert np.array_equal(part, whole[:, 6000:18000])
    assert decode_flac(data, 0.9, 0.5)[0].shape == (2, 2400)
    assert decode_flac(data, 5.0, 0.5)[0].shape == (2, 0)
    assert reason_of(lambda: decode_flac(b"fLaC" + bytes(100))) == "corrupt"
    assert reason_of(lambda: decode_flac(data[: len(data) // 2])) in ("corrupt", "truncated")
    middle = len(data) // 2
    broken = data[:middle] + bytes(40) + data[middle + 40 :]
    assert reason_of(lambda: decode_flac(broken)) in ("corrupt", "truncated")
