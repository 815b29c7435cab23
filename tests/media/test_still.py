"""Still pictures of strangers: upright, on white, and bounded before their pixels are decoded."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from avssl.errors import MediaError
from avssl.media.limits import Limits
from avssl.media.still import EXTENSIONS, read_still


def picture() -> np.ndarray:
    rows, columns = np.mgrid[:24, :32]
    return np.stack([rows * 8, columns * 7, np.full_like(rows, 90)], -1).astype(np.uint8)


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("bmp", 0), ("jpg", 12), ("webp", 20)])
def test_the_formats(tmp_path, suffix, tolerance):
    assert suffix in EXTENSIONS
    Image.fromarray(picture()).save(tmp_path / f"p.{suffix}", quality=95)
    found = read_still(tmp_path / f"p.{suffix}")
    assert found.shape == (24, 32, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - picture()).max() <= tolerance


def test_turned_as_the_camera_noted_and_transparent_is_white(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side
    Image.fromarray(picture()).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_still(tmp_path / "p.png"), np.rot90(picture(), -1))
    seen = np.dstack([picture(), np.zeros((24, 32), np.uint8)])
    seen[:, 16:, 3] = 255
    Image.fromarray(seen, "RGBA").save(tmp_path / "q.png")
    found = read_still(tmp_path / "q.png")
    assert (found[:, :16] == 255).all() and np.array_equal(found[:, 16:], picture()[:, 16:])


def test_grey_and_palettes_become_colours(tmp_path):
    Image.fromarray(picture()).convert("L").save(tmp_path / "grey.png")
    Image.fromarray(picture()).quantize(16).save(tmp_path / "palette.png")
    assert read_still(tmp_path / "grey.png").shape == read_still(tmp_path / "palette.png").shape == (24, 32, 3)


def claims_to_be(width: int, height: int) -> bytes:
    """A PNG whose header says so and that holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not-media"),
        (b"GIF89a" + bytes(60), "not-media"),  # a format that is not read here
        (claims_to_be(60_000, 60_000), "too-large"),
        (claims_to_be(9_000, 9_000), "too-large"),
        (claims_to_be(64, 64), "corrupt"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, content, reason):
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(MediaError) as caught:
        read_still(tmp_path / "p.png")
    assert caught.value.reason == reason and str(tmp_path / "p.png") in str(caught.value)


def test_damage_at_every_place_is_an_error_or_a_picture(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    random = np.random.default_rng(0)
    for cut in range(0, len(whole), 7):
        for content in (whole[:cut], whole[:cut] + random.bytes(4) + whole[cut + 4 :]):
            (tmp_path / "p.png").write_bytes(content)
            try:
                assert read_still(tmp_path / "p.png").ndim == 3
            except MediaError as error:
                assert error.reason in ("corrupt", "not-media", "too-large")


def test_limits_and_missing_files(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "p.png")
    with pytest.raises(MediaError, match="too-large"):
        read_still(tmp_path / "p.png", Limits(max_pixels=100))
    with pytest.raises(MediaError, match="unreadable"):
        read_still(tmp_path / "absent.png")
