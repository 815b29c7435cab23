"""Write media files: the only encoder of the project.

Everything here gives the same bytes for the same input in one environment: one codec thread, no time stamps of
the day, no random identifiers, no encoder versions in the metadata. Pictures are stored in BT.601 limited range
unless told otherwise, and tagged as such, so that every player converts them back alike.

FFmpeg and its encoders (x264, x265, SVT-AV1, libvpx, AAC, Opus, LAME) come inside the PyAV wheel.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import av
import numpy as np
from av.codec.context import Flags as CodecFlags
from av.container.core import Flags as ContainerFlags
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from avssl.errors import UsageError
from avssl.media.types import Frames

Target = str | os.PathLike[str] | IO[bytes]

_CONTAINERS = {
    ".mp4": "mp4", ".m4v": "mp4", ".m4a": "mp4", ".mov": "mov", ".mkv": "matroska", ".mka": "matroska",
    ".webm": "webm", ".avi": "avi", ".ts": "mpegts", ".flv": "flv", ".ogg": "ogg", ".mp3": "mp3",
    ".wav": "wav", ".flac": "flac", ".aac": "adts",
}  # fmt: skip
_DEFAULT_AUDIO_CODEC = {"matroska": "libopus", "webm": "libopus", "ogg": "libopus", "avi": "libmp3lame",
                        "mp3": "libmp3lame", "wav": "pcm_s16le", "flac": "flac"}  # fmt: skip
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_MATRICES = {"bt601": (Colorspace.ITU601, 6), "bt709": (Colorspace.ITU709, 1)}  # swscale's number, the file's number

# What each codec needs so that its bytes depend neither on the number of threads nor on the kind of processor.
# (x264's macroblock tree with B-frames differs from run to run on AVX-512 machines without `cpu-independent`.)
_REPEATABLE = {
    "libx264": ("x264-params", "cpu-independent=1"),
    "libx265": ("x265-params", "pools=none:frame-threads=1:log-level=error"),
    "libsvtav1": ("svtav1-params", "lp=1"),
}
_BITEXACT: Any = ContainerFlags.bitexact.value
_PACKET_SAMPLES = 4096  # PCM would make one packet of whatever it is given, and could not be interleaved


def fastdecode_options(gop: int = 8, crf: int = 20) -> dict[str, str]:
    """x264 options that decode fastest: no B-frames, no CABAC, no loop filter, a key frame every `gop` frames."""
    return {"preset": "veryfast", "tune": "fastdecode", "bf": "0", "g": str(gop), "crf": str(crf)}


class MediaWriter:
    """A file under construction: add tracks, write to them in the order of time, close (or leave the `with`).

    `target` is a path or a binary file object; `container` is FFmpeg's muxer name, by default from the file name.
    """

    def __init__(self, target: Target, *, container: str | None = None, muxer_options: Mapping[str, str] | None = None):
        if container is None:
            suffix = Path(target).suffix.lower() if isinstance(target, str | os.PathLike) else ""
            if suffix not in _CONTAINERS:
                raise UsageError(f"{target}: cannot tell the container from the name, give container= (e.g. 'mp4')")
            container = _CONTAINERS[suffix]
        self.container = container
        file: Any = os.fspath(target) if isinstance(target, str | os.PathLike) else target
        self._output = av.open(file, "w", format=container, container_options=dict(muxer_options or {}))
        self._output.flags |= _BITEXACT
        self._tracks: list[VideoTrack | AudioTrack] = []

    def add_video(
        self, size_px: tuple[int, int], fps: float | Fraction, *, codec: str = "libx264",
        options: Mapping[str, str] | None = None, pixel_format: str = "yuv420p", matrix: str = "bt601",
        full_range: bool = False, rotation_deg: int = 0, default: bool = True, time_base: Fraction | None = None,
    ) -> VideoTrack:  # fmt: skip
        """A video track of (height, width) pixels. `rotation_deg`: counter-clockwise turn that players apply.

        `time_base` is only needed for frames off the grid of `fps` (see `VideoTrack.write`).
        """
        track = VideoTrack(
            self._output, size_px, fps, codec=codec, options=options or {}, pixel_format=pixel_format, matrix=matrix,
            full_range=full_range, rotation_deg=rotation_deg, default=default, time_base=time_base,
        )  # fmt: skip
        self._tracks.append(track)
        return track

    def add_audio(
        self, rate_hz: int, channels: int = 1, *, codec: str | None = None, layout: str | None = None,
        options: Mapping[str, str] | None = None, bit_rate: int | None = None, start_s: float = 0.0,
        default: bool = True,
    ) -> AudioTrack:  # fmt: skip
        """An audio track. `layout` is FFmpeg's name (default: the usual one for `channels`)."""
        codec = codec or _DEFAULT_AUDIO_CODEC.get(self.container, "aac")
        layout = layout or _LAYOUTS[channels]
        track = AudioTrack(
            self._output, rate_hz, layout, codec=codec, options=options or {}, bit_rate=bit_rate, start_s=start_s,
            default=default,
        )  # fmt: skip
        self._tracks.append(track)
        return track

    def close(self) -> None:
        """Flush the encoders and finish the file."""
        try:
            for track in self._tracks:
                track.flush()
        finally:
            self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if kind is None:
            self.close()
        else:
            self._output.close()


class VideoTrack:
    """One video track of a `MediaWriter`."""

    def __init__(
        self, output: Any, size_px: tuple[int, int], fps: float | Fraction, *, codec: str, options: Mapping[str, str],
        pixel_format: str, matrix: str, full_range: bool, rotation_deg: int, default: bool, time_base: Fraction | None,
    ):  # fmt: skip
        height, width = size_px
        if pixel_format == "yuv420p" and codec in ("libx264", "libx265") and (height % 2 or width % 2):
            raise UsageError(f"{codec} stores 4:2:0 pictures of even size only, not {width}x{height}")
        if codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only; it speaks on the terminal, past FFmpeg's log
        rate = Fraction(fps).limit_denominator(1001)
        self._output = output
        self._time_base = time_base or 1 / rate
        self._step = 1 / (rate * self._time_base)
        stream = output.add_stream(codec, rate=rate, options=_repeatable(codec, options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.time_base = self._time_base
        stream.time_base = self._time_base
        context.thread_count, context.thread_type = 1, "NONE"
        context.flags |= CodecFlags.bitexact.value
        self._matrix: Colorspace | None = None
        self._range: ColorRange | None = None
        if not context.format.is_rgb:
            self._matrix, context.colorspace = _MATRICES[matrix]
            self._range = ColorRange.JPEG if full_range else ColorRange.MPEG
            context.color_range = self._range
        if rotation_deg:
            stream.set_display_rotation(rotation_deg)
        if not default:
            stream.disposition = 0
        self._stream, self._pixel_format = stream, pixel_format
        self._reformatter = VideoReformatter()
        self.frames_written = 0

    def write(self, picture: np.ndarray, *, time_s: float | None = None) -> None:
        """Add one picture, RGB [H, W, 3] or I420 [H*3//2, W] uint8, shown at `time_s` (default: the next of `fps`)."""
        picture = np.ascontiguousarray(picture, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24" if picture.ndim == 3 else "yuv420p")
        if picture.ndim == 2:
            frame.colorspace, frame.color_range = Colorspace.ITU601, ColorRange.MPEG
        frame = self._reformatter.reformat(
            frame, format=self._pixel_format, dst_colorspace=self._matrix, dst_color_range=self._range,
            interpolation=Interpolation.BILINEAR, threads=1,
        )  # fmt: skip
        frame.time_base = self._time_base
        ticks = self.frames_written * self._step if time_s is None else Fraction(time_s) / self._time_base
        frame.pts = round(ticks)
        self.frames_written += 1
        self._output.mux(self._stream.encode(frame))

    def flush(self) -> None:
        self._output.mux(self._stream.encode(None))


class AudioTrack:
    """One audio track of a `MediaWriter`."""

    def __init__(
        self, output: Any, rate_hz: int, layout: str, *, codec: str, options: Mapping[str, str], bit_rate: int | None,
        start_s: float, default: bool,
    ):  # fmt: skip
        stream = output.add_stream(codec, rate=rate_hz, options=dict(options))
        stream.layout = layout
        context = stream.codec_context
        context.time_base = Fraction(1, rate_hz)
        context.thread_count = 1
        context.flags |= CodecFlags.bitexact.value
        if bit_rate is not None:
            context.bit_rate = bit_rate
        if not default:
            stream.disposition = 0
        self._output, self._stream, self._rate_hz, self._layout = output, stream, rate_hz, layout
        self._next = round(start_s * rate_hz)

    def write(self, samples: np.ndarray) -> None:
        """Add float samples [C, S] in -1..1 that follow the ones before."""
        samples = np.atleast_2d(samples)
        for begin in range(0, samples.shape[1], _PACKET_SAMPLES):
            part = samples[:, begin : begin + _PACKET_SAMPLES].astype(np.float32)
            packed = np.ascontiguousarray(part.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate_hz, Fraction(1, self._rate_hz), self._next
            self._next += part.shape[1]
            self._output.mux(self._stream.encode(frame))

    def skip(self, duration_s: float) -> None:
        """Leave a hole in the time stamps before what is written next (for codecs without frames of fixed size)."""
        self._next += round(duration_s * self._rate_hz)

    def flush(self) -> None:
        self._output.mux(self._stream.encode(None))


def write_video(
    target: Target, frames: Iterable[np.ndarray | Frames], fps: float | Fraction, *, audio: np.ndarray | None = None,
    audio_rate_hz: int | None = None, container: str | None = None, video_codec: str = "libx264",
    audio_codec: str | None = None, video_options: Mapping[str, str] | None = None, pixel_format: str = "yuv420p",
) -> int:  # fmt: skip
    """Write pictures at `fps`, and sound [C, S] beside them, to a path or a binary file object.

    `frames` gives pictures (RGB [H, W, 3] or I420 [H*3//2, W], uint8) or `Frames` chunks of either.
    For shards use `video_options=fastdecode_options()`. Returns the number of pictures written.
    Raises UsageError where there is no picture, or sound without a rate.
    """
    if audio is not None and audio_rate_hz is None:
        raise UsageError(f"{target}: sound needs audio_rate_hz")
    pictures = _pictures(frames)
    first = next(pictures, None)
    if first is None:
        raise UsageError(f"{target}: no picture to write")
    size_px = first.shape[:2] if first.ndim == 3 else (first.shape[0] * 2 // 3, first.shape[1])
    with ExitStack() as stack:
        writer = stack.enter_context(MediaWriter(target, container=container))
        video = writer.add_video(size_px, fps, codec=video_codec, options=video_options, pixel_format=pixel_format)
        sound: AudioTrack | None = None
        if audio is not None and audio_rate_hz is not None:
            audio = np.atleast_2d(audio)
            sound = writer.add_audio(audio_rate_hz, audio.shape[0], codec=audio_codec)
        video.write(first)
        samples_written = 0
        for picture in pictures:
            video.write(picture)
            if sound is not None and audio is not None and audio_rate_hz is not None:
                # Sound follows the pictures closely, so that the muxer need not hold either back.
                until = round(video.frames_written / Fraction(fps).limit_denominator(1001) * audio_rate_hz)
                if until - samples_written >= 4096 and samples_written < audio.shape[1]:
                    sound.write(audio[:, samples_written:until])
                    samples_written = until
        if sound is not None and audio is not None and samples_written < audio.shape[1]:
            sound.write(audio[:, samples_written:])
        return video.frames_written


def _repeatable(codec: str, options: Mapping[str, str]) -> dict[str, str]:
    if codec not in _REPEATABLE:
        return dict(options)
    name, value = _REPEATABLE[codec]
    return {**options, name: f"{options[name]}:{value}" if name in options else value}


def _pictures(frames: Iterable[np.ndarray | Frames]) -> Any:
    for item in frames:
        if isinstance(item, Frames):
            yield from item.data
        else:
            yield item


def encode_jpeg(picture: np.ndarray) -> bytes:
    """A picture [H, W, 3] uint8 as a JPEG file, which is one frame of motion JPEG; small enough for a page of many."""
    buffer = io.BytesIO()
    with MediaWriter(buffer, container="mjpeg") as writer:
        writer.add_video(
            picture.shape[:2], fps=1, codec="mjpeg", pixel_format="yuvj420p", full_range=True,
            options={"qmin": "4", "qmax": "4"},
        ).write(picture)  # fmt: skip
    return buffer.getvalue()
