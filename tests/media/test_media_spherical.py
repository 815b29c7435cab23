"""What files say about themselves as 360° video: boxes put into real files, read back, damaged; side data."""

import io
import struct

import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import SpatialInfo, open_media, spherical
from avssl.media.encode import MediaWriter
from avssl.media.types import Ambisonics

RATE_HZ = 8000


def box(kind, *parts):
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def sa3d(order=1, ordering=0, normalisation=0, channel_map=(0, 1, 2, 3), kind=0):
    head = struct.pack(">BBIBBI", 0, kind, order, ordering, normalisation, len(channel_map))
    return box(b"SA3D", head, struct.pack(f">{len(channel_map)}I", *channel_map))


def st3d(mode=0):
    return box(b"st3d", struct.pack(">IB", 0, mode))


def sv3d(projection=b"equi"):
    content = {b"equi": struct.pack(">IIIII", 0, 0, 0, 0, 0), b"cbmp": struct.pack(">III", 0, 0, 0)}.get(
        projection, b""
    )
    head = box(b"svhd", struct.pack(">I", 0), b"tests\0")
    pose = box(b"prhd", struct.pack(">Iiii", 0, 0, 0, 0))
    return box(b"sv3d", head, box(b"proj", pose, box(projection, content)))


def gspherical(projection="equirectangular", stereo="mono"):
    xml = (
        "<rdf:SphericalVideo><GSpherical:Spherical>true</GSpherical:Spherical>"
        f"<GSpherical:ProjectionType>{projection}</GSpherical:ProjectionType>"
        f"<GSpherical:StereoMode>{stereo}</GSpherical:StereoMode></rdf:SphericalVideo>"
    )
    return box(b"uuid", bytes.fromhex("ffcc8263f8554a938814587a02521fdd"), xml.encode())


PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


def put(data, track, extra, *, into=b"stsd"):
    """The file with `extra` at the end of a track's sample entry, or of its box `trak`. `moov` comes last in it."""

    def grow(content, path, first=0):
        out, place, seen = b"", first, 0
        while place + 8 <= len(content):
            size, kind = struct.unpack_from(">I4s", content, place)
            inner = content[place + 8 : place + size]
            if kind == path[0]:
                if kind != b"trak" or seen == track:
                    if kind == into and kind == b"stsd":
                        entry_size, entry = struct.unpack_from(">I4s", inner, 8)
                        inner = inner[:8] + box(entry, inner[16 : 8 + entry_size], extra) + inner[8 + entry_size :]
                    elif kind == into:
                        inner += extra
                    else:
                        inner = grow(inner, path[1:])
                seen += kind == b"trak"
            out += box(kind, inner)
            place += size
        return content[:first] + out

    return grow(data, PATH)


def clip(sound=4, codec="flac", layout="4.0"):
    """An MP4 of 8 pictures, with a sound of so many channels."""
    file = io.BytesIO()
    with MediaWriter(file, container="mp4") as writer:
        video = writer.add_video((32, 64), 8.0)
        audio = writer.add_audio(RATE_HZ, sound, codec=codec, layout=layout)
        for number in range(8):
            video.write(np.full((32, 64, 3), 10 * number, np.uint8))
        audio.write((np.random.default_rng(0).standard_normal((sound, RATE_HZ)) * 0.1).astype(np.float32))
    return file.getvalue()


def spatial(data):
    with open_media(data, name="x.mp4") as media:
        assert media.frames_at([0.5]).data.shape == (1, 32, 64, 3), "the file still plays"
        return media.spatial


def test_a_plain_file_says_nothing():
    assert spatial(clip()) == SpatialInfo(None, None, None)


def test_all_boxes_together():
    data = put(put(clip(), 0, st3d(0) + sv3d()), 1, sa3d())
    said = Ambisonics(1, "acn", "sn3d", (0, 1, 2, 3), periphonic=True, head_locked_stereo=False)
    assert spatial(data) == SpatialInfo("equirectangular", "mono", said)


@pytest.mark.parametrize(("mode", "word"), [(0, "mono"), (1, "top-bottom"), (2, "left-right"), (9, "other")])
def test_stereo_modes(mode, word):
    assert spatial(put(clip(), 0, st3d(mode) + sv3d())).stereo == word


@pytest.mark.parametrize(("kind", "word"), [(b"cbmp", "cubemap"), (b"mshp", "mesh"), (b"xxxx", "other")])
def test_other_projections(kind, word):
    found = spherical.of_boxes(io.BytesIO(put(clip(), 0, sv3d(kind))), 0, 1)
    assert (found.projection, found.stereo) == (word, "mono")


def test_the_first_version_of_the_specification():
    data = put(clip(), 0, gspherical(stereo="top-bottom"), into=b"trak")
    assert (spatial(data).projection, spatial(data).stereo) == ("equirectangular", "top-bottom")
    assert spatial(put(clip(), 0, gspherical("cubemap"), into=b"trak")).projection == "cubemap"


def test_other_ambisonics():
    third = sa3d(order=3, channel_map=tuple(range(16)), kind=0x80)
    found = spherical.of_boxes(io.BytesIO(put(clip(), 1, third)), 0, 1).ambisonics
    assert (found.order, len(found.channel_map), found.head_locked_stereo, found.periphonic) == (3, 16, True, True)
    found = spherical.of_boxes(io.BytesIO(put(clip(), 1, sa3d(ordering=1, normalisation=2, kind=1))), 0, 1).ambisonics
    assert (found.ordering, found.normalisation, found.periphonic) == ("type 1", "type 2", False)


def test_tracks_are_told_apart():
    data = put(clip(), 1, sa3d())
    assert spherical.of_boxes(io.BytesIO(data), 0, 0).ambisonics is None
    assert spherical.of_boxes(io.BytesIO(data), None, 1).ambisonics is not None
    assert spherical.of_boxes(io.BytesIO(data), 7, 7) == SpatialInfo()


def test_channels_in_another_order_are_refused_before_they_are_opened():
    """PyAV would end the process."""
    data = put(clip(), 1, sa3d(channel_map=(0, 3, 1, 2)))
    with pytest.raises(MediaError, match=r"x\.mp4: .*\[0, 3, 1, 2\].*channel-map"):
        open_media(data, name="x.mp4")


def test_damaged_boxes_say_nothing():
    """Whatever bytes of `moov` are changed or lost, an answer comes, and no error."""
    data = put(put(clip(), 0, st3d(0) + sv3d()), 1, sa3d())
    start = data.index(b"moov") - 4
    random = np.random.default_rng(0)
    for number in range(300):
        broken = bytearray(data)
        for place in random.integers(start, len(data), 1 + number % 5):
            broken[place] = random.integers(256)
        spherical.of_boxes(io.BytesIO(bytes(broken)), 0, 1)
    for end in range(start, len(data), 37):
        spherical.of_boxes(io.BytesIO(data[:end]), 0, 1)
    assert spherical.of_boxes(io.BytesIO(b""), 0, 1) == SpatialInfo()
    assert spherical.of_boxes(io.BytesIO(box(b"moov")), 0, 1) == SpatialInfo()
    huge = put(clip(), 1, sa3d(channel_map=()))
    lie = huge.replace(struct.pack(">BBIBBI", 0, 0, 1, 0, 0, 0), struct.pack(">BBIBBI", 0, 0, 1, 0, 0, 2**31))
    assert spherical.of_boxes(io.BytesIO(lie), 0, 1).ambisonics is None


def test_side_data_of_pictures():
    """What FFmpeg itself reads from the boxes and hands on with the pictures is the same."""
    data = put(clip(), 0, st3d(1) + sv3d())
    with open_media(data, name="x.mp4") as media:
        frame, _, _ = next(media._video.frames([0.0]))
        assert spherical.of_frame(frame) == ("equirectangular", "top-bottom")
    with open_media(clip(), name="x.mp4") as media:
        frame, _, _ = next(media._video.frames([0.0]))
        assert spherical.of_frame(frame) == (None, None)


def test_a_real_clip_that_was_downloaded_again_says_nothing(media_dir):
    with open_media(media_dir / "spatial" / "chart_piano-left_voice-right_gulls-up.mp4") as media:
        assert media.spatial == SpatialInfo(None, None, None)
        assert media.info.audio is not None and media.info.audio.channels == 6
