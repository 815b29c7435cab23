"""An open media file: what it holds, pictures at times, sound between times."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import numpy as np

from avssl.errors import MediaError, UsageError
from avssl.media import backends, guard, spherical, streams
from avssl.media.audio import AudioReader
from avssl.media.cursor import Cursor, stamp_of
from avssl.media.limits import DEFAULT_LIMITS, Deadline, Limits
from avssl.media.picture import Painter, target_size, turn_of
from avssl.media.types import Audio, AudioInfo, Channels, Frames, MediaInfo, Pixels, Source, SpatialInfo, VideoInfo
from avssl.media.video import HOLD_S, VideoReader

_IN_ORDER = (
    "vp8",
    "vp9",
    "libvpx-vp9",
    "libdav1d",
    "av1",
    "mjpeg",
    "theora",
)  # codecs decoded in the order they are shown


class Media:
    """One open file; use it in a `with`. Made by `open_media`. Not for several threads at once.

    All methods raise `MediaError`, whose `reason` is one of the words in docs/media.md.
    """

    def __init__(
        self, source: Source, *, limits: Limits, name: str | None, backend: str, audio_stream: int | None = None
    ):
        self._source, self._limits, self._backend_name = source, limits, backend
        self._opened: list[Any] = []  # files and containers
        try:
            self._file, self._name, self._size = guard.open_file(source, name, limits)
            self._opened.append(self._file)
            self._format = guard.sniff(self._file, self._name)
            if self._format == "mov":
                spherical.refuse_channel_maps(self._file, self._name)
                self._file.seek(0)
            self._container: Any = guard.open_container(self._file, self._format, self._name, self._size, limits)
            self._opened.append(self._container)
            self._video_stream, self._audio_stream = streams.choose(self._container, self._name, limits, audio_stream)
        except BaseException:
            self.close()
            raise
        chosen = [stream for stream in (self._video_stream, self._audio_stream) if stream is not None]
        self._zero_s = min(streams.start_s(stream) for stream in chosen)
        self._first_taken = False

    def close(self) -> None:
        """Close the file and free the decoders."""
        # The readers refer back to this object: dropped here, their decoders go now and not at some garbage collection.
        for reader in ("_video", "_audio", "_backend"):
            self.__dict__.pop(reader, None)
        self._video_stream = self._audio_stream = self._container = None
        while self._opened:
            self._opened.pop().close()

    def _cursor_for(self, stream: Any) -> tuple[Cursor, Any]:
        """A place to read `stream` from that no other reader moves: the first reader's is the container that was opened
        first, the second opens its own. Pictures and sound can so be read side by side."""
        container = self._container
        if self._first_taken:
            file, _, _ = guard.open_file(self._source, self._name, self._limits)
            self._opened.append(file)
            container = guard.open_container(file, self._format, self._name, self._size, self._limits)
            self._opened.append(container)
            if len(container.streams) <= stream.index:
                raise MediaError(self._name, "corrupt", "the file has changed while it was read")
        self._first_taken = True
        deadline = Deadline(self._name, self._limits.timeout_s)
        # MPEG program streams stamp some packets only, and FFmpeg's guesses for the others are wrong after a seek.
        cursor = Cursor(container, self._name, deadline, can_seek=self._format != "mpeg")
        return cursor, container.streams[stream.index]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @functools.cached_property
    def info(self) -> MediaInfo:
        """What the file holds. Decodes the first picture and the first sound: only they know rotation and true rate."""
        video, audio = self._video_info(), self._audio_info()
        ends = [part.start_s + part.duration_s for part in (video, audio) if part is not None]
        videos = [s for s in self._container.streams.video if not s.disposition & streams.STILL]
        return MediaInfo(
            container=self._format, duration_s=max(ends), size_bytes=self._size, video=video, audio=audio,
            video_streams=len(videos), audio_streams=len(self._container.streams.audio),
        )  # fmt: skip

    @functools.cached_property
    def spatial(self) -> SpatialInfo:
        """What the file says about itself as 360° video (see `avssl.media.spherical`). Decodes the first picture."""
        found = SpatialInfo()
        video, audio = self._video_stream, self._audio_stream
        if self._format == "mov":
            file, _, _ = guard.open_file(self._source, self._name, self._limits)
            with file:
                found = spherical.of_boxes(file, *(None if each is None else each.index for each in (video, audio)))
        if video is None or found.projection is not None:
            return found
        projection, stereo = spherical.of_frame(next(self._video.frames([0.0]))[0])
        return SpatialInfo(projection, found.stereo or stereo, found.ambisonics)

    def _video_info(self) -> VideoInfo | None:
        stream = self._video_stream
        if stream is None:
            return None
        frame, first_s, _ = next(self._video.frames([0.0]))
        turns, _ = turn_of(frame)
        width, height = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        return VideoInfo(
            index=stream.index, codec=stream.codec_context.codec.canonical_name, width_px=width, height_px=height,
            fps=self._fps, rotation_deg=90 * turns, start_s=first_s, duration_s=self._duration_s(stream, first_s),
            pixel_format=frame.format.name, time_base=stream.time_base,
        )  # fmt: skip

    def _audio_info(self) -> AudioInfo | None:
        stream = self._audio_stream
        if stream is None:
            return None
        rate_hz, names, layout = self._audio.facts()
        start_s = float(streams.start_s(stream) - self._zero_s)
        return AudioInfo(
            index=stream.index, codec=stream.codec_context.codec.canonical_name, rate_hz=rate_hz, channels=len(names),
            layout=layout, start_s=start_s, duration_s=self._duration_s(stream, start_s),
        )  # fmt: skip

    def _duration_s(self, stream: Any, first_s: float) -> float:
        end_s = streams.header_end_s(self._container, stream)
        if end_s is None:  # recorded live: only the last packet knows
            end_s = self._last_packet_end_s(stream)
        return max(0.0, float(end_s - self._zero_s) - first_s)

    def _last_packet_end_s(self, stream: Any) -> Fraction:
        """End of the stream on the file's own clock, found by reading all its packets."""
        cursor, stream = self._cursor_for(stream)
        cursor.use(stream)
        ends = ((stamp_of(packet) or 0) + (packet.duration or 0) for packet in cursor.packets(stream))
        return max(ends, default=stream.start_time or 0) * stream.time_base

    @functools.cached_property
    def _fps(self) -> float:
        stream = self._video_stream
        rate = (stream.average_rate or stream.guessed_rate) if stream is not None else None
        return float(rate) if rate else 0.0

    @functools.cached_property
    def _video(self) -> VideoReader:
        stream = self._video_stream
        if not self._opened:
            raise UsageError(f"{self._name} is closed")
        if stream is None:
            raise MediaError(self._name, "no-video", "has no video stream")
        codec = stream.codec_context.codec.name
        cursor, stream = self._cursor_for(stream)
        return VideoReader(
            cursor, stream, name=self._name, zero_s=self._zero_s, fps=self._fps,
            promised_end_s=lambda: self._promised_end_s(stream), ends_early=self._ends_early, limits=self._limits,
            # AVI has no presentation times: its n-th chunk is for the n-th picture shown, in whatever order they are
            # decoded. Those FFmpeg works out are wrong for packed and newer B-frames.
            ordinal=self._format == "avi",
            dts_known=self._format in guard.HAS_DECODING_TIMES or codec in _IN_ORDER,
        )  # fmt: skip

    @functools.cached_property
    def _audio(self) -> AudioReader:
        if not self._opened:
            raise UsageError(f"{self._name} is closed")
        if self._audio_stream is None:
            raise MediaError(self._name, "no-audio", "has no audio stream")
        cursor, stream = self._cursor_for(self._audio_stream)
        return AudioReader(
            cursor, stream, name=self._name, zero_s=self._zero_s, ends_early=self._ends_early,
            promised_end_s=lambda: self._promised_end_s(stream), limits=self._limits,
        )  # fmt: skip

    def _promised_end_s(self, stream: Any) -> float | None:
        if self._format == "avi" and self._ends_early():
            return None  # FFmpeg estimates the duration from what is left
        end_s = streams.promised_end_s(self._container, self._format, stream)
        return None if end_s is None else float(end_s - self._zero_s)

    def _ends_early(self) -> bool:
        return guard.ends_early(self._file, self._format, self._size)

    def frames_at(
        self, times_s: Iterable[float], *, short_side_px: int | None = None, size_px: tuple[int, int] | None = None,
        pixels: Pixels = "rgb24",
    ) -> Frames:  # fmt: skip
        """The pictures shown at the non-decreasing `times_s`, scaled to `short_side_px` or `size_px` (height, width).

        The picture shown at t is the last one that begins not after t (to half a millisecond or half a tick of the
        file's clock, whichever is less); before the first one, the first. Raises MediaError: `no-video`, `truncated`,
        `corrupt`, `out-of-range` for times more than half a second after the end, `timeout`, `too-large`.
        """
        times = [float(time_s) for time_s in times_s]
        if self._backend_name != "pyav":
            return self._frames_by_backend(times, short_side_px, size_px, pixels)
        painter = Painter(pixels, short_side_px=short_side_px, size_px=size_px)
        return self._paint(_each(self._video.frames(times)), painter, len(times))

    @functools.cached_property
    def _backend(self) -> backends.FrameBackend:
        video = self._need_video()
        if video.rotation_deg or len(self._container.streams.video) > 1:
            raise UsageError(f"{self._name}: {self._backend_name} cannot turn pictures or choose a stream; take pyav")
        if (self._backend_name, video.codec) == ("decord", "hevc"):
            raise UsageError(f"{self._name}: decord gives wrong pictures of HEVC; take pyav")
        return backends.open_backend(self._backend_name, self._source, stored_px=(video.height_px, video.width_px))

    def _need_video(self) -> VideoInfo:
        if self.info.video is None:
            raise MediaError(self._name, "no-video", "has no video stream")
        return self.info.video

    def _frames_by_backend(
        self, times_s: list[float], short_side_px: int | None, size_px: tuple[int, int] | None, pixels: Pixels
    ) -> Frames:
        if pixels != "rgb24":
            raise UsageError(f"{self._backend_name} gives rgb24 pictures only")
        video = self._need_video()
        end_s = video.start_s + video.duration_s + HOLD_S
        if times_s and times_s[-1] > end_s:
            raise MediaError(self._name, "out-of-range", f"time {times_s[-1]:.3f} s is after the pictures' end")
        size_px = target_size(
            (video.height_px, video.width_px), short_side_px=short_side_px, size_px=size_px, pixels=pixels
        )
        zero_s = float(self._zero_s)
        try:
            data, starts_s = self._backend.frames_at([time_s + zero_s for time_s in times_s], size_px)
        except (RuntimeError, IndexError, ValueError) as error:  # decord's DECORDError is a RuntimeError
            why = str(error).splitlines()[0]
            raise MediaError(self._name, "corrupt", f"{self._backend_name} cannot read it ({why})") from None
        return Frames(data, starts_s - zero_s)

    def iter_frames(
        self, start_s: float, fps: float, *, end_s: float | None = None, short_side_px: int | None = None,
        size_px: tuple[int, int] | None = None, pixels: Pixels = "rgb24", chunk: int = 64,
    ) -> Iterator[Frames]:  # fmt: skip
        """The pictures at `start_s + k / fps`, k = 0, 1, … before `end_s` (default: their end), `chunk` at a time.

        Reads once through the file; memory does not grow with it. Only one such iterator at a time (one of `iter_audio`
        may run beside it).
        """
        if not fps > 0 or chunk < 1:
            raise UsageError(f"{self._name}: fps and chunk must be above 0")
        step = 1 / Fraction(fps).limit_denominator(100_000)
        grid: Iterator[float] = (float(start_s + k * step) for k in itertools.count())
        if end_s is not None:
            grid = itertools.takewhile(lambda time_s: time_s < end_s - 1e-9, grid)
        painter = Painter(pixels, short_side_px=short_side_px, size_px=size_px)
        shown = _each(self._video.frames(grid, until_end=end_s is None))
        while len((part := self._paint(shown, painter, chunk)).data):
            yield part
            self._video.restart_clock()

    def _paint(self, shown: Iterator[tuple[Any, float]], painter: Painter, count: int) -> Frames:
        """Up to `count` pictures in one array."""
        data: np.ndarray = np.empty((0, 0, 0, 3), np.uint8)
        times_s = np.empty(count)
        done, before = 0, None
        for frame, time_s in itertools.islice(shown, count):
            if done == 0:
                data = np.empty((count, *painter.shape(frame)), np.uint8)
            if frame is before:
                data[done] = data[done - 1]
            else:
                painter.paint(frame, data[done], self._name)
            times_s[done] = time_s
            done, before = done + 1, frame
        return Frames(data[:done], times_s[:done])

    def audio_between(self, start_s: float, duration_s: float, *, rate_hz: int, channels: Channels = "mono") -> Audio:
        """Exactly round(duration_s * rate_hz) samples from `start_s` on; zeros, marked, outside the stream.

        `channels`: "mono" or "stereo" by the downmix of `avssl.media.downmix`, "all" for the decoder's channels in the
        decoder's order, untouched. Raises MediaError: `no-audio`, `truncated`, `corrupt`, `timeout`, `too-large`.
        """
        first, count = round(start_s * rate_hz), round(duration_s * rate_hz)
        return next(self._audio.blocks(first, first + count, rate_hz=rate_hz, channels=channels, block=max(count, 1)))

    def iter_audio(
        self,
        start_s: float,
        *,
        end_s: float | None = None,
        rate_hz: int,
        channels: Channels = "mono",
        chunk_s: float = 10.0,
    ) -> Iterator[Audio]:
        """The sound from `start_s` to `end_s` (default: its end) in seamless parts of `chunk_s`, the last one shorter.

        Reads once through the file; memory does not grow with it.
        """
        first, last = round(start_s * rate_hz), None if end_s is None else round(end_s * rate_hz)
        block = max(1, round(chunk_s * rate_hz))
        yield from self._audio.blocks(first, last, rate_hz=rate_hz, channels=channels, block=block)


def _each(found: Iterator[tuple[Any, float, int]]) -> Iterator[tuple[Any, float]]:
    for frame, time_s, count in found:
        for _ in range(count):
            yield frame, time_s


def open_media(
    source: Source,
    *,
    limits: Limits = DEFAULT_LIMITS,
    name: str | None = None,
    backend: str = "pyav",
    audio_stream: int | None = None,
) -> Media:
    """Open a path, or a whole file in memory (then `name` stands in messages). Raises MediaError.

    `backend` says which decoder `frames_at` uses: pyav, decord or torchcodec. `audio_stream` says which of several
    sound streams is read, counted from 0; None: the best one, by the rule in docs/media.md.
    """
    return Media(source, limits=limits, name=name, backend=backend, audio_stream=audio_stream)


def probe(source: Source, limits: Limits = DEFAULT_LIMITS) -> MediaInfo:
    """What a file holds. Raises MediaError where it cannot be used."""
    with open_media(source, limits=limits) as media:
        return media.info
