"""Test media with known content: numbered pictures that flash, sound that clicks, in many containers; and odd files.

Picture number k of a clip carries k as a barcode that survives any codec; at the flash times its lower half is
white. The sound clicks at the same times. So a reader can be asked which picture it gave, and whether sight and
sound agree. Everything is made by the encoders inside the PyAV wheel.
"""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from avssl.media.encode import MediaWriter, fastdecode_options

FLASHES_S = (1.0, 2.4)
SIZE_PX = (96, 128)
_BITS = 16


@dataclass(frozen=True)
class Recipe:
    """How to encode a clip: FFmpeg's muxer, video and audio encoders (None: no such stream), and their options."""

    container: str
    video: str | None = "libx264"
    audio: str | None = "aac"
    rate_hz: int = 44100
    bit_rate: int | None = None
    video_options: Mapping[str, str] = field(default_factory=dict)
    muxer_options: Mapping[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"


_X264 = {"preset": "veryfast", "crf": "18"}
_SVT = {"preset": "12", "g": "20", "crf": "20"}
_VPX = {"deadline": "realtime", "cpu-used": "8"}
RECIPES: dict[str, Recipe] = {
    "mp4-h264-aac": Recipe("mp4", video_options={**_X264, "g": "30", "bf": "3"}),
    "mp4-h264-faststart": Recipe("mp4", video_options={**_X264, "g": "30"}, muxer_options={"movflags": "faststart"}),
    "mp4-h264-longgop-mp3": Recipe("mp4", audio="libmp3lame", video_options={**_X264, "g": "1000", "bf": "3"}),
    "mp4-h264-opengop": Recipe("mp4", video_options={**_X264, "g": "12", "bf": "3", "x264-params": "open-gop=1"}),
    "mp4-h264-refresh": Recipe("mp4", video_options={**_X264, "g": "12", "bf": "0", "x264-params": "intra-refresh=1"}),
    "mp4-h264-fragmented": Recipe("mp4", video_options={**_X264, "g": "25"},
                                  muxer_options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "mp4-h264-fastdecode": Recipe("mp4", audio=None, video_options=fastdecode_options()),
    "mp4-hevc-aac": Recipe("mp4", "libx265", video_options={"preset": "ultrafast", "g": "20", "bf": "3"}),
    "mp4-av1-opus": Recipe("mp4", "libsvtav1", "libopus", 48000, video_options=_SVT),
    "mov-h264-pcm": Recipe("mov", audio="pcm_s16le", video_options={**_X264, "g": "30"}),
    "mov-mjpeg-pcm": Recipe("mov", "mjpeg", "pcm_s16le", pixel_format="yuvj420p"),
    "mkv-h264-opus": Recipe("matroska", audio="libopus", rate_hz=48000, video_options={**_X264, "g": "30", "bf": "3"}),
    "mkv-hevc-flac": Recipe("matroska", "libx265", "flac", video_options={"preset": "ultrafast", "g": "20"}),
    "mkv-mpeg4-mp3": Recipe("matroska", "mpeg4", "libmp3lame", video_options={"bf": "2", "g": "12", "b": "2M"}),
    "webm-vp9-opus": Recipe("webm", "libvpx-vp9", "libopus", 48000, video_options={**_VPX, "g": "30"}),
    "webm-vp8-opus": Recipe("webm", "libvpx", "libopus", 48000,  # with hidden reference pictures
                            video_options={**_VPX, "g": "30", "b": "1M", "auto-alt-ref": "1", "lag-in-frames": "10"}),
    "webm-av1-opus": Recipe("webm", "libsvtav1", "libopus", 48000, video_options=_SVT),
    "avi-mpeg4-mp3": Recipe("avi", "mpeg4", "libmp3lame", video_options={"g": "12", "b": "2M"}),
    "avi-mpeg4-bframes-mp3": Recipe("avi", "mpeg4", "libmp3lame", video_options={"bf": "2", "g": "12", "b": "2M"}),
    "avi-h264-bframes-mp3": Recipe("avi", audio="libmp3lame", video_options={**_X264, "bf": "2", "g": "30"}),
    "avi-mjpeg-pcm": Recipe("avi", "mjpeg", "pcm_s16le", pixel_format="yuvj420p"),
    "ts-h264-aac": Recipe("mpegts", video_options={**_X264, "g": "30", "bf": "3"}),
    "ts-mpeg2-mp2": Recipe("mpegts", "mpeg2video", "mp2", video_options={"bf": "2", "g": "12", "b": "2M"}),
    "mpeg-mpeg2-mp2": Recipe("mpeg", "mpeg2video", "mp2", video_options={"bf": "2", "g": "12", "b": "2M"}),
    "asf-wmv2-wmav2": Recipe("asf", "wmv2", "wmav2", bit_rate=64000, video_options={"g": "12", "b": "2M"}),
    "flv-h264-aac": Recipe("flv", video_options={**_X264, "g": "30", "bf": "3"}),
}  # fmt: skip


def picture(number: int, size_px: tuple[int, int] = SIZE_PX, *, flash: bool = False) -> np.ndarray:
    """RGB [H, W, 3]: upper half a barcode of `number` (16 bits), lower half a moving pattern, or white."""
    height, width = size_px
    image = np.empty((height, width, 3), np.uint8)
    columns = np.arange(width) * (_BITS // 2) // width
    for row in range(2):
        bits = number >> (columns + row * (_BITS // 2)) & 1
        image[row * height // 4 : (row + 1) * height // 4] = np.where(bits, 230, 25)[None, :, None]
    below = image[height // 2 :]
    if flash:
        below[...] = 255
    else:
        y, x = np.mgrid[: below.shape[0], :width]
        below[..., 0] = (x + 3 * number) % width * 120 // width
        below[..., 1] = (y + number) % below.shape[0] * 120 // below.shape[0]
        below[..., 2] = 60
    return image


def number_of(image: np.ndarray) -> int:
    """The number in a picture (RGB [H, W, 3] of any size)."""
    height, width = image.shape[:2]
    centres = ((np.arange(_BITS // 2) + 0.5) * width / (_BITS // 2)).astype(int)
    bits = np.concatenate([image[height * (2 * row + 1) // 8, centres].mean(axis=-1) > 128 for row in range(2)])
    return int((bits << np.arange(_BITS)).sum())


def is_flash(image: np.ndarray) -> bool:
    return float(image[image.shape[0] * 3 // 4].mean()) > 190


def sound(duration_s: float, rate_hz: int, channels: int = 1, clicks_s: Iterable[float] = FLASHES_S) -> np.ndarray:
    """float32 [C, S]: near silence, and a burst of 12 ms that starts at each of `clicks_s`."""
    samples = np.random.default_rng(0).normal(0, 1e-4, (channels, round(duration_s * rate_hz)))
    time_s = np.arange(round(0.012 * rate_hz)) / rate_hz
    burst = 0.8 * np.cos(2 * np.pi * 1500 * time_s) * np.exp(-time_s / 0.004)
    for click_s in clicks_s:
        start = round(click_s * rate_hz)
        stop = min(start + len(burst), samples.shape[1])
        samples[:, start:stop] += burst[: stop - start]
    return samples.astype(np.float32)


def click_times_s(samples: np.ndarray, rate_hz: int) -> list[float]:
    """When the clicks in one channel start: the first sample above a quarter of the loudest, half a second apart."""
    loud = np.flatnonzero(np.abs(samples) > 0.25 * np.abs(samples).max())
    starts = loud[np.concatenate([[True], np.diff(loud) > rate_hz // 2])]
    return [int(start) / rate_hz for start in starts]


def clip(
    recipe: str | Recipe,
    *,
    duration_s: float = 4.0,
    fps: float = 25.0,
    size_px: tuple[int, int] = SIZE_PX,
    channels: int = 1,
) -> bytes:
    """A flash-and-click clip by a recipe or its name in `RECIPES`."""
    recipe = RECIPES[recipe] if isinstance(recipe, str) else recipe
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"  # a file, since moving the index to the front reads what was written
        _write_clip(path, recipe, duration_s, fps, size_px, channels)
        return path.read_bytes()


def _write_clip(
    path: Path, recipe: Recipe, duration_s: float, fps: float, size_px: tuple[int, int], channels: int
) -> None:
    with MediaWriter(path, container=recipe.container, muxer_options=recipe.muxer_options) as writer:
        video = audio = None
        if recipe.video is not None:
            video = writer.add_video(
                size_px, fps, codec=recipe.video, options=recipe.video_options, pixel_format=recipe.pixel_format,
                full_range=recipe.pixel_format.startswith("yuvj"),
            )  # fmt: skip
        if recipe.audio is not None:
            audio = writer.add_audio(recipe.rate_hz, channels, codec=recipe.audio, bit_rate=recipe.bit_rate)
        if video is not None:
            flashes = {round(flash_s * fps) for flash_s in FLASHES_S}
            for number in range(round(duration_s * fps)):
                video.write(picture(number, size_px, flash=number in flashes))
        if audio is not None:
            audio.write(sound(duration_s, recipe.rate_hz, channels))


def variable_rate(times_s: Iterable[float], container: str = "mp4") -> bytes:
    """Numbered pictures shown at the given times (on a grid of 1/90000 s)."""
    buffer = io.BytesIO()
    with MediaWriter(buffer, container=container) as writer:
        video = writer.add_video(SIZE_PX, 30, options={**_X264, "bf": "2", "g": "20"}, time_base=Fraction(1, 90000))
        for number, time_s in enumerate(times_s):
            video.write(picture(number), time_s=time_s)
    return buffer.getvalue()


def rotated(rotation_deg: int, size_px: tuple[int, int] = (96, 160)) -> bytes:
    """Stored pictures that players turn counter-clockwise; shown upright they are `picture(number, size_px)`."""
    buffer = io.BytesIO()
    stored_px = size_px if rotation_deg % 180 == 0 else size_px[::-1]
    with MediaWriter(buffer, container="mp4") as writer:
        video = writer.add_video(stored_px, 25, options=_X264, rotation_deg=rotation_deg)
        for number in range(25):
            video.write(np.rot90(picture(number, size_px), -rotation_deg // 90))
    return buffer.getvalue()


def several_streams() -> bytes:
    """Two videos, two sounds.

    Video 0: 64x48, not default, pictures from 1000 on. Video 1: 128x96, default. Then a mono sound, not default, with a
    click at 0.5 s, and a stereo one, default, that clicks with the flashes.
    """
    buffer = io.BytesIO()
    with MediaWriter(buffer, container="matroska") as writer:
        other = writer.add_video((48, 64), 25, options=_X264, default=False)
        main = writer.add_video(SIZE_PX, 25, options=_X264)
        first = writer.add_audio(48000, 1, codec="libopus", default=False)
        second = writer.add_audio(48000, 2, codec="libopus")
        for number in range(75):
            other.write(picture(1000 + number, (48, 64)))
            main.write(picture(number, flash=number in (25, 60)))
        first.write(sound(3.0, 48000, clicks_s=(0.5,)))
        second.write(sound(3.0, 48000, 2))
    return buffer.getvalue()


def surround(layout: str = "5.1", codec: str = "flac", container: str = "matroska", rate_hz: int = 48000) -> bytes:
    """Sound only: each channel holds a tone of 300 Hz times its number (from 1), at half of full scale."""
    channels = {"mono": 1, "stereo": 2, "quad": 4, "5.1": 6, "7.1": 8}[layout]
    time_s = np.arange(rate_hz) / rate_hz
    tones = 0.5 * np.sin(2 * np.pi * 300 * np.arange(1, channels + 1)[:, None] * time_s)
    buffer = io.BytesIO()
    with MediaWriter(buffer, container=container) as writer:
        writer.add_audio(rate_hz, layout=layout, codec=codec).write(tones)
    return buffer.getvalue()


def truncated(data: bytes, fraction: float) -> bytes:
    return data[: int(len(data) * fraction)]


def bit_flipped(data: bytes, flips: int, *, seed: int = 0, begin: float = 0.0, end: float = 1.0) -> bytes:
    """`flips` random bits inverted between two fractions of the file."""
    random = np.random.default_rng(seed)
    changed = bytearray(data)
    for place in random.integers(int(len(data) * begin), int(len(data) * end), flips):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def playlists(target: Path) -> dict[str, bytes]:
    """Texts that tell a player to open `target` instead, by kind."""
    path = str(target)
    texts = {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        "m3u8 after spaces": f"  \n\t#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{path}\n",
        "m3u8 with a mark": f"\ufeff#EXTM3U\n#EXTINF:10,\n{path}\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{path}'\n",
        "concat": f"file '{path}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\na=control:{path}\n",
        "dash": f'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{path}</BaseURL></MPD>\n',
        "smil": f'<smil><body><video src="{path}"/></body></smil>\n',
        "asx": f'<asx version="3.0"><entry><ref href="{path}"/></entry></asx>\n',
        "pls": f"[playlist]\nFile1={path}\nNumberOfEntries=1\n",
        "cue": f'FILE "{path}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "rtsp text": f"RTSPtext\nrtsp://127.0.0.1/{path}\n",
    }
    return {kind: text.encode() for kind, text in texts.items()}


def with_external_reference(target: Path) -> bytes:
    """An mp4 whose tracks say that their samples lie in the file `target`, by a path QuickTime players follow."""
    data = clip("mov-h264-pcm", duration_s=0.4)
    path = str(target).encode()
    # The data reference atom says "in this file" (flag 1); in its place an alias record with two kinds of path.
    inside = b"\0\0\0\x0curl \0\0\0\1"
    at = data.index(inside)
    name = target.name.encode()[:63]
    record = bytearray(150)
    record[4:6], record[6:8] = (150).to_bytes(2, "big"), (2).to_bytes(2, "big")
    record[50 : 51 + len(name)] = bytes([len(name)]) + name
    record[130:134] = b"\0\1\0\1"  # levels up and down from the movie
    tail = b"\0\2" + len(path).to_bytes(2, "big") + path + b"\0" * (len(path) % 2)
    tail += b"\0\x12" + len(path).to_bytes(2, "big") + path + b"\0" * (len(path) % 2) + b"\xff\xff\0\0"
    alias = bytes(record) + tail
    atom = (12 + len(alias)).to_bytes(4, "big") + b"alis" + b"\0\0\0\0" + alias
    return _with_replaced_atom(data, at, len(inside), atom)


def _with_replaced_atom(data: bytes, at: int, length: int, atom: bytes) -> bytes:
    """Put `atom` in the place of one inside moov, and correct the sizes of all atoms around it (moov stands last)."""
    grown = bytearray(data[:at] + atom + data[at + length :])

    def correct(begin: int, end: int) -> None:
        while begin + 8 <= end:
            size = int.from_bytes(data[begin : begin + 4], "big")
            if size < 8:
                return
            if begin < at < begin + size:
                grown[begin : begin + 4] = (size + len(atom) - length).to_bytes(4, "big")
                kind = data[begin + 4 : begin + 8]
                correct(begin + (16 if kind == b"dref" else 8), begin + size)
                return
            begin += size

    correct(0, len(data))
    return bytes(grown)


def huge_header(container: str = "mp4", side_px: int = 16000) -> bytes:
    """H.264 whose sequence header declares `side_px` x `side_px` pixels, over the data of a small picture."""
    data = bytearray(clip(Recipe(container, audio=None, video_options=_X264), duration_s=0.4))
    header = _sequence_header(side_px)
    # In place, filled up with zeros, which may follow any header: no size or offset of the container changes.
    places = []
    for found in re.finditer(rb"\x00\x00\x01\x67", data):
        end = data.find(b"\0\0\1", found.end())
        if 0 < end - found.end() < 64:
            places.append((found.end() - 1, end))
    if not places:  # its length before the header, as mp4 and Matroska have it
        after_length = re.search(rb"\x00([\x10-\x40])\x67", data)
        assert after_length is not None
        places = [(after_length.end() - 1, after_length.end() - 1 + after_length[1][0])]
    for begin, end in places:
        assert end - begin >= len(header)
        data[begin:end] = header + bytes(end - begin - len(header))
    return bytes(data)


def _sequence_header(side_px: int) -> bytes:
    """An H.264 sequence parameter set, baseline profile (ITU-T H.264, 7.3.2.1.1)."""

    def unsigned(value: int) -> str:  # exponential-Golomb code
        bits = f"{value + 1:b}"
        return "0" * (len(bits) - 1) + bits

    macroblocks = side_px // 16 - 1
    bits = unsigned(0) + unsigned(0) + unsigned(2) + unsigned(1) + "0"  # id, frame numbers, order, references, gaps
    bits += unsigned(macroblocks) * 2 + "1100" + "1"  # size; frames only, direct 8x8, no cropping, no extras; stop bit
    bits += "0" * (-len(bits) % 8)
    return b"\x67\x42\xc0\x33" + int(bits, 2).to_bytes(len(bits) // 8, "big")
