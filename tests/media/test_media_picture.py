"""Pixels: size, turn, colour matrix and range, pixel formats; rgb24 and yuv420p say the same."""

import io
import struct

import numpy as np
import pytest

from avssl.errors import UsageError
from avssl.media import MediaWriter, fastdecode_options, open_media, write_video
from avssl.media.picture import target_size
from avssl.synthetic import fixtures

COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50), (255, 255, 255), (0, 0, 0), (128, 128, 128),
                    (20, 220, 220)], np.uint8)  # fmt: skip


def bars(height=64):
    return np.broadcast_to(COLOURS.repeat(16, axis=0), (height, 128, 3))


def to_rgb(i420, height, width):
    """BT.601 limited range to RGB, in the plainest way; float [H/2, W/2, 3] at every second pixel."""
    y = i420[:height][::2, ::2].astype(float) - 16
    u = i420[height : height * 5 // 4].reshape(height // 2, width // 2).astype(float) - 128
    v = i420[height * 5 // 4 :].reshape(height // 2, width // 2).astype(float) - 128
    k_r, k_b = 0.299, 0.114
    red, blue = 255 / 219 * y + 255 / 112 * (1 - k_r) * v, 255 / 219 * y + 255 / 112 * (1 - k_b) * u
    green = (255 / 219 * y - k_r * red - k_b * blue) / (1 - k_r - k_b)
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_survive_whatever_way_they_are_stored(pixel_format, matrix, full_range):
    buffer = io.BytesIO()
    with MediaWriter(buffer, container="mov") as writer:
        video = writer.add_video(
            (64, 128), 25, pixel_format=pixel_format, matrix=matrix, full_range=full_range, options={"crf": "1"}
        )
        for _ in range(3):
            video.write(bars())
    with open_media(buffer.getvalue()) as media:
        rgb = media.frames_at([0.04]).data[0]
        i420 = media.frames_at([0.04], pixels="yuv420p").data[0]
        small = media.frames_at([0.04], size_px=(32, 64), pixels="yuv420p").data[0]
    assert np.abs(rgb[32, 8::16].astype(int) - COLOURS).max() <= 4
    assert np.abs(to_rgb(i420, 64, 128)[16, 4::8] - COLOURS).max() <= 6
    assert np.abs(to_rgb(small, 32, 64)[8, 2::4] - COLOURS).max() <= 6


@pytest.mark.parametrize("codec", ["libx264rgb", "mjpeg", "ffv1"])
def test_other_kinds_of_pixels(codec):
    pixel_format = {"libx264rgb": "rgb24", "mjpeg": "yuvj444p", "ffv1": "yuv444p"}[codec]
    options = {"libx264rgb": {"crf": "0"}, "mjpeg": {"q:v": "2"}, "ffv1": {}}[codec]
    recipe = fixtures.Recipe("matroska", codec, None, video_options=options, pixel_format=pixel_format)
    with open_media(fixtures.clip(recipe, duration_s=0.4)) as media:
        rgb, i420 = media.frames_at([0.2]).data[0], media.frames_at([0.2], pixels="yuv420p").data[0]
    expected = fixtures.picture(5).astype(int)
    assert np.abs(rgb - expected).mean() < 4
    assert np.abs(to_rgb(i420, 96, 128) - expected[::2, ::2]).mean() < 8


def test_planes_of_a_shard_clip_are_given_as_stored():
    """No conversion where none is needed: what was written as planes comes back as the decoder has it."""
    buffer = io.BytesIO()
    planes = [np.full((144, 128), 40 + 3 * number, np.uint8) for number in range(16)]
    write_video(buffer, planes, 16, container="mp4", video_options=fastdecode_options(crf=1))
    with open_media(buffer.getvalue()) as media:
        found = media.frames_at(np.arange(16) / 16, pixels="yuv420p").data
    assert np.abs(found.astype(int) - np.stack(planes)).max() <= 2


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("pixels", ["rgb24", "yuv420p"])
def test_turned_pictures_stand_upright(rotation_deg, pixels):
    with open_media(fixtures.rotated(rotation_deg)) as media:
        info = media.info.video
        assert (info.rotation_deg, info.height_px, info.width_px) == (rotation_deg, 96, 160)
        for size in ({}, {"short_side_px": 64}, {"size_px": (72, 100)}):
            found = media.frames_at([0.0, 0.36], pixels=pixels, **size).data
            height, width = {0: (96, 160), 1: (64, 106), 2: (72, 100)}[len(size) and 1 + ("size_px" in size)]
            if pixels == "rgb24":
                assert found.shape == (2, height, width, 3)
            else:
                assert found.shape == (2, height * 3 // 2, width)
                found = np.stack([to_rgb(picture, height, width) for picture in found])
            assert [fixtures.number_of(picture) for picture in found] == [0, 9]


def test_the_matrix_of_a_phone_turns_clockwise():
    """The display matrix as phones write it for an upright film, by the letter of the QuickTime format: x' = ax + cy,
    y' = bx + dy with y downwards, so (0, 1; -1, 0) takes the right hand to the bottom."""
    data = fixtures.rotated(0)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(upright, data.index(b"tkhd"))
    phone = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 96 << 16, 0, 1 << 30)
    mirror = struct.pack(">9i", -(1 << 16), 0, 0, 0, 1 << 16, 0, 160 << 16, 0, 1 << 30)
    for matrix, expect in ((phone, lambda p: np.rot90(p, -1)), (mirror, lambda p: p[:, ::-1])):
        with open_media(data[:at] + matrix + data[at + 36 :]) as media:
            found = media.frames_at([0.2]).data[0].astype(int)
        assert np.abs(found - expect(fixtures.picture(5, (96, 160)))).mean() < 4


@pytest.mark.parametrize("name", ["webm-vp9-opus", "mkv-mpeg4-mp3", "mov-mjpeg-pcm"])
def test_odd_sizes(name):
    with open_media(fixtures.clip(name, duration_s=0.4, size_px=(95, 127))) as media:
        assert (media.info.video.height_px, media.info.video.width_px) == (95, 127)
        assert media.frames_at([0.2]).data.shape == (1, 95, 127, 3)
        assert fixtures.number_of(media.frames_at([0.2]).data[0]) == 5
        assert media.frames_at([0.2], pixels="yuv420p").data.shape == (1, 94 * 3 // 2, 126)


def test_sizes():
    assert target_size((720, 1280), short_side_px=128, size_px=None, pixels="rgb24") == (128, 228)
    assert target_size((1280, 720), short_side_px=128, size_px=None, pixels="rgb24") == (228, 128)
    assert target_size((300, 300), short_side_px=128, size_px=None, pixels="rgb24") == (128, 128)
    assert target_size((95, 127), short_side_px=None, size_px=None, pixels="rgb24") == (95, 127)
    assert target_size((95, 127), short_side_px=None, size_px=None, pixels="yuv420p") == (94, 126)
    assert target_size((95, 127), short_side_px=None, size_px=(10, 30), pixels="yuv420p") == (10, 30)
    for wrong in ({"short_side_px": 10, "size_px": (10, 10)}, {"short_side_px": None, "size_px": (0, 10)}):
        with pytest.raises(UsageError):
            target_size((95, 127), pixels="rgb24", **wrong)
    with pytest.raises(UsageError):
        target_size((95, 127), short_side_px=97, size_px=None, pixels="yuv420p")
    with open_media(fixtures.clip("mp4-h264-aac", duration_s=0.2)) as media, pytest.raises(UsageError, match="rgb24"):
        media.frames_at([0.0], pixels="bgr")


def test_scaling_does_not_alias():
    """A fine checkerboard scaled down is grey; picking or skipping pixels would leave stripes."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    buffer = io.BytesIO()
    write_video(buffer, [board] * 3, 25, container="mp4", video_options={"crf": "1"})
    with open_media(buffer.getvalue()) as media:
        small = media.frames_at([0.04], short_side_px=64).data[0].astype(int)
    assert np.abs(small[4:-4, 4:-4] - 128).max() < 12
