"""What a file says about itself as 360° video: boxes of MP4 and QuickTime files, side data of decoded pictures.

| where | what | says |
| --- | --- | --- |
| sound's sample entry | `SA3D` | ambisonics: order, channel ordering, normalisation, which component each channel is |
| picture's sample entry | `st3d` | one picture or two: `mono`, `top-bottom`, `left-right` |
| picture's sample entry | `sv3d` / `proj` | `equi`: equirectangular, `cbmp`: cubemap, `mshp`: mesh |
| track | `uuid` of GSpherical | the same as XML (version 1 of the specification) |

Source: Google's Spatial Media specifications (spherical video 1 and 2, spatial audio). Most files that were downloaded
again have lost all of it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from avssl.errors import MediaError
from avssl.media.types import Ambisonics, SpatialInfo

_MOST_BYTES = 64 << 20  # of `moov`; longer ones are of files that no shard is made of
_VISUAL, _SOUND = 78, 28  # bytes of a sample entry before its boxes
_SOUND_MORE = {1: 16, 2: 36}  # of QuickTime's versions of it
_GSPHERICAL = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
_STEREO = {0: "mono", 1: "top-bottom", 2: "left-right"}
_PROJECTIONS = {b"equi": "equirectangular", b"cbmp": "cubemap", b"mshp": "mesh"}
_FRAME_PROJECTIONS = {
    0: "equirectangular",
    1: "cubemap",
    2: "equirectangular",
}  # AVSphericalProjection; 2: a tile of it
_FRAME_STEREO = {0: "mono", 1: "left-right", 2: "top-bottom"}  # AVStereo3DType


class _Box(NamedTuple):
    kind: bytes
    content: bytes


def of_boxes(file: IO[bytes], video: int | None, audio: int | None) -> SpatialInfo:
    """What the boxes say about the tracks of these numbers. Damaged boxes say nothing."""
    moov = _moov(file)
    tracks = [box.content for box in _boxes(moov) if box.kind == b"trak"]
    projection = stereo = ambisonics = None
    if video is not None and video < len(tracks):
        projection, stereo = _picture(tracks[video])
    if audio is not None and audio < len(tracks):
        ambisonics = _sound(tracks[audio])
    return SpatialInfo(projection, stereo, ambisonics)


def refuse_channel_maps(file: IO[bytes], name: str) -> None:
    """MediaError `channel-map` for sound whose channels are not in the order of their components.

    To be asked before FFmpeg opens an MP4: such a box makes PyAV (18) free memory twice, which ends the process.
    """
    for box in _boxes(_moov(file)):
        said = _sound(box.content) if box.kind == b"trak" else None
        if said is not None and said.channel_map != tuple(range(len(said.channel_map))):
            raise MediaError(
                name, "channel-map",
                f"its SA3D box has the channels in the order {list(said.channel_map)}; write them in ACN order",
            )  # fmt: skip


def of_frame(frame: Any) -> tuple[str | None, str | None]:
    """Projection and stereo mode as the decoder attached them to a picture (Matroska's `Projection`, for one)."""
    found: dict[str, int] = {}
    for side in frame.side_data:
        if side.type.name in ("SPHERICAL", "STEREO3D"):
            content = bytes(side)
            if len(content) >= 4:
                found[side.type.name] = struct.unpack_from("=i", content)[0]
    projection = _FRAME_PROJECTIONS.get(found["SPHERICAL"], "other") if "SPHERICAL" in found else None
    return projection, _FRAME_STEREO.get(found["STEREO3D"], "other") if "STEREO3D" in found else None


def _moov(file: IO[bytes]) -> bytes:
    """The content of the box `moov`, empty where there is none or it is too long."""
    end = file.seek(0, 2)
    place = 0
    while place + 8 <= end:
        file.seek(place)
        head = file.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        header = 8
        if size == 1 and len(head) == 16:
            (size,), header = struct.unpack_from(">Q", head, 8), 16
        elif size == 0:
            size = end - place
        if size < header:
            return b""
        if kind == b"moov":
            file.seek(place + header)
            return file.read(size - header) if size <= _MOST_BYTES else b""
        place += size
    return b""


def _boxes(content: bytes) -> Iterator[_Box]:
    """The boxes side by side in `content`, up to the first that does not fit."""
    place = 0
    while place + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if size < 8 or place + size > len(content):
            return
        yield _Box(kind, content[place + 8 : place + size])
        place += size


def _inside(content: bytes, *path: bytes) -> bytes | None:
    """The content of the first box at a path of kinds."""
    for kind in path:
        found = next((box.content for box in _boxes(content) if box.kind == kind), None)
        if found is None:
            return None
        content = found
    return content


def _sample_entry(track: bytes) -> bytes:
    """The content of the first sample entry of a track."""
    table = _inside(track, b"mdia", b"minf", b"stbl", b"stsd") or b""
    return next((box.content for box in _boxes(table[8:])), b"")


def _picture(track: bytes) -> tuple[str | None, str | None]:
    boxes = _sample_entry(track)[_VISUAL:]
    projection = stereo = None
    mode = _inside(boxes, b"st3d")
    if mode is not None and len(mode) >= 5:
        stereo = _STEREO.get(mode[4], "other")
    kinds = _inside(boxes, b"sv3d", b"proj")
    if kinds is not None:
        projection = next((_PROJECTIONS[box.kind] for box in _boxes(kinds) if box.kind in _PROJECTIONS), "other")
    if projection is None:
        return _from_xml(track, stereo)
    return projection, stereo or "mono"


def _from_xml(track: bytes, stereo: str | None) -> tuple[str | None, str | None]:
    xml = next(
        (box.content[16:] for box in _boxes(track) if box.kind == b"uuid" and box.content[:16] == _GSPHERICAL), b""
    ).decode("utf-8", "replace")
    if (_tag(xml, "Spherical") or "").lower() != "true":
        return None, stereo
    return (_tag(xml, "ProjectionType") or "other").lower(), stereo or (_tag(xml, "StereoMode") or "mono").lower()


def _tag(xml: str, name: str) -> str | None:
    found = re.search(rf"<GSpherical:{name}>\s*([A-Za-z-]+)\s*</GSpherical:{name}>", xml)
    return found[1] if found else None


def _sound(track: bytes) -> Ambisonics | None:
    entry = _sample_entry(track)
    if len(entry) < _SOUND:
        return None
    version = struct.unpack_from(">H", entry, 8)[0]
    box = _inside(entry[_SOUND + _SOUND_MORE.get(version, 0) :], b"SA3D")
    if box is None or len(box) < 12:
        return None
    kind, order, ordering, normalisation, channels = struct.unpack_from(">xBIBBI", box)
    if channels > 64 or len(box) < 12 + 4 * channels:
        return None
    return Ambisonics(
        order=order,
        ordering="acn" if ordering == 0 else f"type {ordering}",
        normalisation="sn3d" if normalisation == 0 else f"type {normalisation}",
        channel_map=struct.unpack_from(f">{channels}I", box, 12),
        periphonic=kind & 0x7F == 0,
        head_locked_stereo=bool(kind & 0x80),
    )
