"""The short ways to read packed members: the same pictures and samples as the general ones, or no answer."""

import io

import numpy as np
import pytest
import soundfile

from avssl.errors import MediaError
from avssl.media import decode_flac, encode_flac, fastdecode_options, open_media, packed_frames, write_video
from avssl.media import flac as flac_module
from avssl.media import packed as packed_module
from avssl.synthetic import fixtures


def pack(frames: int, fps: float, size_px=(48, 86), gop=8, **options) -> bytes:
    """A clip as `avssl.shards` encodes it."""
    pictures = _noise(frames, *size_px)
    file = io.BytesIO()
    video_options = fastdecode_options(gop, 20) | options.pop("video_options", {})
    write_video(file, pictures, fps, container="mp4", video_options=video_options, **options)
    return file.getvalue()


def _noise(frames, height, width):
    generator = np.random.default_rng(frames)
    still = generator.integers(0, 255, (height, width, 3), np.uint8)
    return (np.roll(still, 3 * k, 1) // 2 + np.uint8(k % 100) for k in range(frames))


def generally(data, times, pixels="rgb24", short_side_px=None):
    with open_media(data, name="clip") as media:
        return media.frames_at(times, pixels=pixels, short_side_px=short_side_px).data


@pytest.fixture(scope="module")
def clip() -> bytes:
    return pack(160, 16)


@pytest.mark.parametrize("pixels", ["rgb24", "yuv420p"])
@pytest.mark.parametrize("short_side_px", [None, 32])
def test_pictures_are_those_of_the_general_way(clip, pixels, short_side_px):
    generator = np.random.default_rng(0)
    for fps in (4, 16, 30):
        start_s = generator.uniform(0, 9)
        times = [start_s + k / fps for k in range(16) if start_s + k / fps < 10]
        found = packed_frames(clip, times, short_side_px=short_side_px, pixels=pixels)
        assert np.array_equal(found, generally(clip, times, pixels, short_side_px))


@pytest.mark.parametrize("fps", [16, 24, 30000 / 1001, 12.5])
def test_at_every_border_of_pictures_and_just_beside_it(fps):
    data = pack(20, fps, size_px=(32, 48))
    borders = [k / fps for k in range(20)]
    times = sorted([t + d for t in borders for d in (-6e-4, -4e-4, 0.0, 4e-4, 6e-4) if t + d >= 0])
    assert np.array_equal(packed_frames(data, times, short_side_px=None, pixels="rgb24"), generally(data, times))


def test_clips_of_one_decoder_do_not_disturb_each_other(clip):
    """The decoder is kept: it must begin anew each time, also after one of another size and after damage."""
    others = pack(30, 16, size_px=(64, 64)), clip[:2000] + bytes(3000) + clip[5000:]
    for start_s in (7.3, 0.0, 3.31, 9.5):
        times = [start_s + k / 16 for k in range(7)]
        expected = generally(clip, times)
        for other in others:
            packed_frames(other, [0.1, 0.2], short_side_px=None, pixels="rgb24")
            assert np.array_equal(packed_frames(clip, times, short_side_px=None, pixels="rgb24"), expected)


def test_many_chunks():
    """A track of more than a megabyte lies in several chunks."""
    data = pack(64, 16, size_px=(360, 640), video_options={"crf": "1"})
    track = packed_module._read_track(data)
    assert len(track.chunks) > 1
    times = [k / 16 for k in range(0, 64, 3)]
    assert np.array_equal(packed_frames(data, times, short_side_px=None, pixels="yuv420p"),
                          generally(data, times, "yuv420p"))  # fmt: skip


@pytest.mark.parametrize("name", sorted(fixtures.RECIPES))
def test_any_other_file_is_left_to_the_general_way_or_read_alike(name):
    data = fixtures.clip(name)
    times = [0.2, 0.4, 0.44]
    found = packed_frames(data, times, short_side_px=None, pixels="rgb24")
    if found is not None:
        assert np.array_equal(found, generally(data, times))


@pytest.mark.parametrize("options", [{"bf": "2"}, {"g": "250", "keyint_min": "250"}])
def test_reordered_pictures_and_rare_key_frames(options):
    data = pack(100, 16, video_options=options)
    times = [5.0 + k / 16 for k in range(10)]
    found = packed_frames(data, times, short_side_px=None, pixels="rgb24")
    assert found is None if "bf" in options else np.array_equal(found, generally(data, times))


def test_times_outside_the_clip_are_left_to_the_general_way(clip):
    for times in ([9.9, 10.01], [], [0.5, 0.1]):
        assert packed_frames(clip, times, short_side_px=None, pixels="rgb24") is None


def test_damage_gives_no_answer_and_never_a_wrong_one(clip):
    """Bits flipped anywhere, and cuts: what comes is what the general way gives, or nothing."""
    generator = np.random.default_rng(1)
    times = [4.0 + k / 16 for k in range(12)]
    answered = 0
    for case in range(120):
        damaged = bytearray(clip)
        for place in generator.integers(0, len(clip), 1 + case % 5):
            damaged[place] ^= 1 << int(generator.integers(8))
        data = bytes(damaged) if case % 6 else bytes(damaged[: generator.integers(100, len(clip))])
        found = packed_frames(data, times, short_side_px=None, pixels="rgb24")
        try:
            expected = generally(data, times)
        except MediaError:
            expected = None
        if found is not None:
            answered += 1
            assert expected is not None and np.array_equal(found, expected), case
    assert answered > 20  # damage elsewhere in the clip is not in the way


def test_hostile_tables_take_no_memory(clip):
    at = clip.index(b"stts") + 4
    for count, repeats in ((1, 2**32 - 1), (2**32 - 1, 1), (2**20, 2**32 - 1)):
        data = clip[: at + 4] + count.to_bytes(4, "big") + repeats.to_bytes(4, "big") + clip[at + 12 :]
        assert packed_frames(data, [0.5], short_side_px=None, pixels="rgb24") is None
    at = clip.index(b"stsz") + 4
    data = clip[: at + 4] + b"\0\0\0\x01" + b"\xff" * 4 + clip[at + 12 :]
    assert packed_frames(data, [0.5], short_side_px=None, pixels="rgb24") is None


SOUNDS = [(1, 24000), (2, 5000), (4, 30001), (1, 1152), (1, 1), (1, 400_000)]


@pytest.mark.parametrize(("channels", "samples"), SOUNDS)
def test_flac_windows_are_those_of_libsndfile(channels, samples):
    generator = np.random.default_rng(samples)
    data = encode_flac(generator.normal(0, 0.2, (channels, samples)).astype(np.float32), 24000)
    whole, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    for case in range(12):
        start_s, duration_s = generator.uniform(-0.1, samples / 24000), [None, 2.0, 0.1, 0.0][case % 4]
        found, rate_hz = flac_module._cut_out(data, start_s, duration_s)  # no detour by the other way
        first = max(0, round(start_s * 24000))
        end = samples if duration_s is None else first + round(duration_s * 24000)
        assert rate_hz == 24000 and found.dtype == np.float32
        assert np.array_equal(found, whole.T[:, first:end])


def test_the_seek_table_is_one_that_others_read():
    samples = np.random.default_rng(0).normal(0, 0.1, (1, 50_000)).astype(np.float32)
    data = encode_flac(samples, 24000)
    assert data[4 + 4 + 34] == 3  # a SEEKTABLE block behind STREAMINFO
    with open_media(data) as media:
        sound = media.audio_between(1.0, 0.5, rate_hz=24000)
    assert np.array_equal(sound.samples, decode_flac(data, 1.0, 0.5)[0])


def test_flac_without_table_and_other_widths_are_read_as_before():
    samples = np.random.default_rng(0).normal(0, 0.1, (30_000, 2)).astype(np.float32)
    for subtype in ("PCM_16", "PCM_24"):
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 24000, format="FLAC", subtype=subtype)
        found, _ = decode_flac(buffer.getvalue(), 0.5, 0.25)
        assert np.abs(found - samples.T[:, 12000:18000]).max() <= 1 / 32768


def test_a_wrong_seek_table_misleads_nobody():
    samples = np.random.default_rng(0).normal(0, 0.1, (1, 60_000)).astype(np.float32)
    data = encode_flac(samples, 24000)
    expected = decode_flac(data, 1.0, 0.5)[0]
    table = 4 + 4 + 34 + 4
    point = flac_module._POINT
    for shift in (-1, 1, 1152, 400):
        number, offset, count = point.unpack_from(data, table + 20 * point.size)
        wrong = bytearray(data)
        point.pack_into(wrong, table + 20 * point.size, number, offset + shift, count)
        try:
            found, _ = decode_flac(bytes(wrong), 1.0, 0.5)
        except MediaError:  # libsndfile believes the table, and fails
            continue
        assert np.array_equal(found, expected)


def test_flac_damage_in_the_window_is_an_error_and_elsewhere_is_not():
    samples = np.random.default_rng(0).normal(0, 0.1, (1, 60_000)).astype(np.float32)
    data = encode_flac(samples, 24000)
    middle = len(data) // 2
    broken = data[:middle] + bytes(40) + data[middle + 40 :]
    with pytest.raises(MediaError):
        decode_flac(broken, 1.0, 0.5)
    assert np.array_equal(decode_flac(broken, 0.0, 0.5)[0], decode_flac(data, 0.0, 0.5)[0])
