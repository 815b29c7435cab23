"""Pictures of clips that `avssl.shards` has encoded, at a third less cost than by the general way.

Such a clip is an MP4 file with one H.264 track whose pictures come in the order they are shown. Its sample table is
then all that a demuxer would tell: read here directly, it saves opening a container for every clip, and the decoder is
kept from one clip to the next. The answer is that of `Media.frames_at`, picture for picture. Whatever is not as simple
as that, damage included, is left to it: nothing is judged here.
"""

from __future__ import annotations

import itertools
import math
import struct
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from avssl.errors import MediaError
from avssl.media.limits import DEFAULT_LIMITS
from avssl.media.picture import Painter
from avssl.media.types import Pixels
from avssl.media.video import tick_tolerance

_DECODERS = 8  # kept in each thread: one for each size of picture (and build of the encoder) in the shards
_MAX_RUN = 256  # pictures to decode at most beside those wanted; the general way watches the clock
_IDENTITY = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # a track shown as it is stored
_UNKNOWN_TABLES = {b"ctts", b"co64", b"saiz", b"sbgp"}  # reordering, large files, encryption, roll-in

_kept = threading.local()


class _NotSimpleError(Exception):
    """The clip is no simple packed one."""


@dataclass(frozen=True)
class _Track:
    """What the sample table says. Ticks are `1 / ticks_per_s` seconds."""

    ticks_per_s: int
    starts: list[int]  # of each picture, and where the last one ends
    sizes: tuple[int, ...]
    keys: tuple[int, ...]  # numbers of key pictures, counted from 1
    chunks: list[tuple[int, int]]  # (number of its first picture, where it lies in the file)
    decoder: bytes  # what the decoder has to know beforehand

    def places(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """(start, end) in the file of the pictures from `first` to before `end`."""
        chunk = bisect_right(self.chunks, (first, math.inf)) - 1
        number, place = self.chunks[chunk]
        place += sum(self.sizes[number:first])
        for number in range(first, end):
            if chunk + 1 < len(self.chunks) and self.chunks[chunk + 1][0] == number:
                chunk += 1
                place = self.chunks[chunk][1]
            yield place, place + self.sizes[number]
            place += self.sizes[number]


def packed_frames(data: bytes, times_s: list[float], *, short_side_px: int | None, pixels: Pixels) -> np.ndarray | None:
    """The data of `Media.frames_at` for a packed clip, or None where that is to be asked."""
    try:
        track = _read_track(data)
        tolerance = tick_tolerance(1 / track.ticks_per_s)
        ticks = [math.floor(time_s * track.ticks_per_s + tolerance) for time_s in times_s]
        if not ticks or ticks[-1] >= track.starts[-1] or any(a > b for a, b in itertools.pairwise(ticks)):
            return None
        numbers = [max(0, bisect_right(track.starts, tick) - 1) for tick in ticks]
        return _decode(data, track, numbers, Painter(pixels, short_side_px=short_side_px, size_px=None))
    except (_NotSimpleError, MediaError, struct.error, LookupError, ValueError, av.error.FFmpegError, EOFError):
        return None


def _decode(data: bytes, track: _Track, numbers: list[int], painter: Painter) -> np.ndarray:
    """The pictures with these non-decreasing `numbers`."""
    key = track.keys[bisect_right(track.keys, numbers[0] + 1) - 1] - 1
    if not 0 <= key <= numbers[0] or numbers[-1] - key > len(numbers) + _MAX_RUN:
        raise _NotSimpleError
    decoder = _take_decoder(track.decoder)
    out: np.ndarray | None = None
    size, done = None, 0
    for number, (start, end) in enumerate(track.places(key, numbers[-1] + 1), key):
        if end > len(data):
            raise _NotSimpleError
        packet = av.Packet(data[start:end])
        packet.pts = number
        frames = decoder.decode(packet)
        # One whole picture for each packet, the first one not referring to any before it.
        if len(frames) != 1 or frames[0].pts != number or frames[0].is_corrupt:
            raise _NotSimpleError
        frame = frames[0]
        if size is None:
            if not frame.key_frame:
                raise _NotSimpleError
            size = frame.width, frame.height
            out = np.empty((len(numbers), *painter.shape(frame)), np.uint8)
        if size != (frame.width, frame.height):
            raise _NotSimpleError
        first = done
        while done < len(numbers) and numbers[done] == number:
            if done == first:
                painter.paint(frame, out[done], "")  # type: ignore[index]
            else:
                out[done] = out[first]  # type: ignore[index]
            done += 1
    _decoders()[track.decoder] = decoder
    assert out is not None
    return out


def _decoders() -> OrderedDict[bytes, Any]:
    if not hasattr(_kept, "decoders"):
        _kept.decoders = OrderedDict()
    return _kept.decoders


def _take_decoder(configuration: bytes) -> Any:
    """A decoder at its start. It comes back to the kept ones only after it has done well."""
    kept = _decoders()
    decoder = kept.pop(configuration, None)
    if decoder is not None:
        decoder.flush_buffers()
        return decoder
    while len(kept) >= _DECODERS:
        kept.popitem(last=False)
    decoder = av.codec.CodecContext.create("h264", "r")
    decoder.extradata = configuration
    decoder.thread_type, decoder.thread_count = "NONE", 1
    decoder.options = {"max_pixels": str(DEFAULT_LIMITS.max_pixels)}
    return decoder


def _read_track(data: bytes) -> _Track:
    moov = _only(data, 0, len(data), b"moov")
    (movie_ticks_per_s,) = struct.unpack_from(">I", data, _version_0(data, _only(data, *moov, b"mvhd")) + 12)
    trak = _only(data, *moov, b"trak")
    tkhd = _version_0(data, _only(data, *trak, b"tkhd"))
    mdia = _only(data, *trak, b"mdia")
    ticks_per_s, duration = struct.unpack_from(">II", data, _version_0(data, _only(data, *mdia, b"mdhd")) + 12)
    if data[tkhd + 40 : tkhd + 76] != _IDENTITY or not ticks_per_s:
        raise _NotSimpleError
    for start, end in _boxes(data, *trak).get(b"edts", []):
        elst = _version_0(data, _only(data, start, end, b"elst"))
        count, length, begin, rate = struct.unpack_from(">IIiI", data, elst + 4)
        # The movie's clock is coarser than the track's: a length is at most a tick short.
        if (count, begin, rate) != (1, 0, 0x10000) or (length + 1) * ticks_per_s < duration * movie_ticks_per_s:
            raise _NotSimpleError
    stbl = _only(data, *_only(data, *mdia, b"minf"), b"stbl")
    tables = _boxes(data, *stbl)
    if _UNKNOWN_TABLES & tables.keys():
        raise _NotSimpleError

    def numbers(kind: bytes, columns: int) -> tuple[int, ...]:
        ((start, _),) = tables[kind]
        (count,) = struct.unpack_from(">I", data, start + 4)
        return struct.unpack_from(f">{columns * count}I", data, start + 8)

    ((stsz, _),) = tables[b"stsz"]
    fixed, count = struct.unpack_from(">II", data, stsz + 4)
    sizes = (fixed,) * count if fixed and count < 1 << 20 else struct.unpack_from(f">{count}I", data, stsz + 12)
    durations: list[int] = []
    for repeats, ticks in _pairs(numbers(b"stts", 2), 2):
        if len(durations) + repeats > count:
            raise _NotSimpleError
        durations += [ticks] * repeats
    starts = list(itertools.accumulate(durations, initial=0))
    if len(durations) != count:
        raise _NotSimpleError
    return _Track(
        ticks_per_s=ticks_per_s, starts=starts, sizes=sizes, keys=numbers(b"stss", 1),
        chunks=_chunks(numbers(b"stco", 1), list(_pairs(numbers(b"stsc", 3), 3)), count),
        decoder=_decoder_configuration(data, *tables[b"stsd"][0]),
    )  # fmt: skip


def _chunks(places: tuple[int, ...], runs: list[tuple[int, ...]], count: int) -> list[tuple[int, int]]:
    """Runs are (number of its first chunk from 1, pictures a chunk, kind of picture)."""
    chunks, number = [], 0
    for (first, pictures, _), (following, *_) in itertools.pairwise([*runs, (len(places) + 1,)]):
        for chunk in range(first, following):
            chunks.append((number, places[chunk - 1]))
            number += pictures
    if number != count:
        raise _NotSimpleError
    return chunks


def _decoder_configuration(data: bytes, start: int, end: int) -> bytes:
    (count,) = struct.unpack_from(">I", data, start + 4)
    entries = _boxes(data, start + 8, end)
    if count != 1 or entries.keys() != {b"avc1"}:
        raise _NotSimpleError
    ((entry_start, entry_end),) = entries[b"avc1"]
    inner = _boxes(data, entry_start + 78, entry_end)
    if b"colr" in inner:  # colours that the pictures themselves do not tell
        raise _NotSimpleError
    ((start, end),) = inner[b"avcC"]
    return data[start:end]


def _boxes(data: bytes, start: int, end: int) -> dict[bytes, list[tuple[int, int]]]:
    """The (start, end) of the contents of the boxes by kind."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        if length < 8 or start + length > end:
            raise _NotSimpleError
        found.setdefault(kind, []).append((start + 8, start + length))
        start += length
    return found


def _only(data: bytes, start: int, end: int, kind: bytes) -> tuple[int, int]:
    found = _boxes(data, start, end).get(kind, [])
    if len(found) != 1:
        raise _NotSimpleError
    return found[0]


def _version_0(data: bytes, box: tuple[int, int]) -> int:
    """Where the box begins, if its fields are those of version 0."""
    if data[box[0]] != 0:
        raise _NotSimpleError
    return box[0]


def _pairs(values: tuple[int, ...], columns: int) -> Iterator[tuple[int, ...]]:
    return zip(*[iter(values)] * columns, strict=True)
