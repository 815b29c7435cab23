"""The way into a media file, in this order: a regular file (or bytes) of bounded size; its first bytes name a
container that is allowed; FFmpeg is handed the open file and that container's demuxer, and nothing else.

FFmpeg never gets a path. It reads through a file object, and every attempt of a demuxer to open something further
(a playlist's entries, a data reference of QuickTime) meets a callback that refuses. Guessing the container, nested
demuxers, protocols and decoders off the list are switched off beside that.
"""

from __future__ import annotations

import io
import os
from typing import IO, Any, cast

import av
import av.logging

from avssl.errors import MediaError
from avssl.media.limits import Limits
from avssl.media.regular import HandedFile, open_regular
from avssl.media.types import Source

av.logging.set_level(av.logging.PANIC)  # damage is reported through errors, not on the terminal

# FFmpeg's names of decoders: formats in common use, whose decoders are well tested against hostile input.
VIDEO_CODECS = frozenset((
    "h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "libvpx-vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1",
    "msmpeg4v2", "msmpeg4", "h263", "flv", "mjpeg", "theora", "wmv1", "wmv2", "wmv3", "vc1", "prores", "dnxhd",
    "ffv1", "huffyuv", "ffvhuff", "utvideo", "dvvideo", "rawvideo", "svq3",
))  # fmt: skip
AUDIO_CODECS = frozenset((
    "aac", "aac_latm", "mp1", "mp2", "mp3", "mp1float", "mp2float", "mp3float", "opus", "libopus", "vorbis",
    "libvorbis", "flac", "alac", "ac3", "eac3", "dca", "wmav1", "wmav2", "wmapro", "amrnb", "amrwb",
    "libopencore_amrnb", "libopencore_amrwb", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "pcm_s8",
    "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le",
    "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw",
))  # fmt: skip

HAS_DECODING_TIMES = ("mov", "mpegts", "flv", "mpeg")
"""Containers that store the times of decoding beside those of presentation."""
_NO_HEADER = ("flv", "mpeg")
"""Containers whose streams show up while probing, too late for our options: no video decoder may open for them then."""

_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_PLAYLISTS = (b"#ext", b"ffconcat", b"v=0", b"<?xml", b"<mpd", b"<smil", b"<asx", b"[playlist]", b"file ", b"file\t")
_HEAD_BYTES = 4096


def open_file(source: Source, name: str | None, limits: Limits) -> tuple[IO[bytes], str, int]:
    """(binary file, name for messages, size in bytes) of a path, of an open file or of bytes in memory.

    Raises MediaError: `unreadable` for what is not there, not allowed or not a regular file, `empty`, `too-large`.
    """
    file: IO[bytes]
    if isinstance(source, bytes | bytearray | memoryview):
        name = name or "<memory>"
        file, size = io.BytesIO(source), len(source)
    elif isinstance(source, HandedFile):
        name = name or source.name
        file, size = cast(IO[bytes], source.reader()), source.size
    else:
        name = name or str(os.fspath(source))
        descriptor = open_regular(source, name)
        file, size = os.fdopen(descriptor, "rb", buffering=0), os.fstat(descriptor).st_size
    try:
        if size == 0:
            raise MediaError(name, "empty", "the file is empty")
        if size > limits.max_bytes:
            raise MediaError(name, "too-large", f"{size} bytes are more than the limit of {limits.max_bytes}")
    except MediaError:
        file.close()
        raise
    return file, name, size


def sniff(file: IO[bytes], name: str) -> str:
    """FFmpeg's name of the container, from the first bytes alone; MediaError where it is not on the list."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    found = _container_of(head)
    if found is None and head[:3] == b"ID3" and len(head) >= 10:
        # An ID3 tag may stand before MP3, AAC or FLAC: look behind it.
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | (head[9] & 127)
        file.seek(10 + size)
        found = _container_of(file.read(_HEAD_BYTES).lstrip(b"\0")) or "mp3"
        if found not in ("mp3", "aac", "flac"):
            found = "mp3"
    file.seek(0)
    if found is not None:
        return found
    text = head.lstrip(b"\xef\xbb\xbf\xfe\xff \t\r\n\0").lower()
    if text.startswith(_PLAYLISTS):
        raise MediaError(name, "forbidden-format", "is a list of other files, which are never opened")
    raise MediaError(name, "not-media", "does not begin like any known video or sound file")


def _container_of(head: bytes) -> str | None:
    if head[4:8] in _MOV_BOXES:
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return {b"AVI ": "avi", b"WAVE": "wav"}.get(head[8:12])
    if head[:16] == _ASF:
        return "asf"
    for magic, container in ((b"OggS", "ogg"), (b"fLaC", "flac"), (b"FLV\x01", "flv"), (b"\0\0\x01\xba", "mpeg")):
        if head.startswith(magic):
            return container
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    for start, step in ((0, 188), (4, 192)):  # transport stream packets; the latter with Blu-ray's 4 extra bytes
        sync = head[start : start + 5 * step : step]
        if len(sync) >= 2 and set(sync) == {0x47}:
            return "mpegts"
    if len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        version, layer, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 2 & 3
        if layer == 0 and head[1] & 0xF0 == 0xF0 and head[2] >> 2 & 15 <= 12:
            return "aac"
        if version != 1 and layer != 0 and rate != 3 and head[2] >> 4 not in (0, 15):
            return "mp3"
    return None


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise NestedOpenError(url)


class NestedOpenError(Exception):
    """The demuxer wanted to open something besides the file it was given."""


def open_container(file: IO[bytes], container_format: str, name: str, size: int, limits: Limits) -> Any:
    """An `av` input container over `file`, opened with all defences. The caller closes both.

    Raises MediaError: `truncated` or `corrupt` for what the demuxer cannot read, `forbidden-format`, `too-large`.
    """
    options = {
        "max_pixels": str(limits.max_pixels),
        "max_streams": str(limits.max_streams),
        "codec_whitelist": ",".join(
            sorted(AUDIO_CODECS if container_format in _NO_HEADER else AUDIO_CODECS | VIDEO_CODECS)
        ),
        "format_whitelist": container_format,
        "protocol_whitelist": "none",
    }
    if container_format in HAS_DECODING_TIMES:
        # Probing decodes no picture then, and opening takes a third of the time. Elsewhere libavformat needs to decode
        # to know how far pictures are reordered, and would give a wrong start. The reader's decoder is another one.
        options["skip_frame"] = "all"
    if container_format == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    timeout = (limits.timeout_s, limits.timeout_s)
    try:
        return av.open(
            file, format=container_format, options=options, metadata_errors="replace", io_open=_refuse, timeout=timeout
        )
    except NestedOpenError as error:
        raise MediaError(name, "forbidden-format", f"wants to open another file ({error})") from None
    except av.error.ExitError:
        raise MediaError(name, "timeout", f"opening takes longer than {limits.timeout_s:g} s") from None
    except MemoryError:  # what libavformat says past `max_streams`, too
        raise MediaError(
            name, "too-large", f"has more than {limits.max_streams} streams, or needs too much memory"
        ) from None
    except (av.error.FFmpegError, EOFError, UnicodeError, ValueError) as error:
        if ends_early(file, container_format, size):
            raise MediaError(name, "truncated", "the file ends before its header says, and cannot be opened") from None
        raise MediaError(name, "corrupt", f"cannot be opened as {container_format} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def ends_early(file: IO[bytes], container_format: str, size: int) -> bool:
    """Whether the container's own sizes reach beyond the end of the file: proof that its tail is missing."""
    position = file.tell()
    try:
        if container_format in ("avi", "wav", "aiff"):
            file.seek(0)
            head = file.read(8)
            declared = int.from_bytes(head[4:8], "big" if head[:4] == b"FORM" else "little")
            return head[:4] in (b"RIFF", b"FORM") and declared != 0xFFFFFFFF and declared + 8 > size + 1
        if container_format == "mov":
            return _last_box_end(file, size) > size
        if container_format == "matroska":
            return _segment_end(file, size) > size
        return False
    finally:
        file.seek(position)


def _last_box_end(file: IO[bytes], size: int) -> int:
    end = 0
    while end + 8 <= size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:  # to the end of the file
            return size
        if length < 8:  # not a box: no statement
            return end
        end += length
    return end


def _segment_end(file: IO[bytes], size: int) -> int:
    """End of the first two elements of a Matroska file: the EBML header and the segment."""
    end = 0
    for _ in range(2):
        file.seek(end)
        head = file.read(12)
        length_at = 4  # both elements have identifiers of four bytes
        if len(head) <= length_at or head[length_at] == 0:
            return end
        width = 9 - head[length_at].bit_length()
        value = int.from_bytes(head[length_at : length_at + width], "big") & ((1 << 7 * width) - 1)
        if value == (1 << 7 * width) - 1:  # unknown size: a live recording
            return end
        end += length_at + width + value
    return end
