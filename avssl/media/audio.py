"""Sound of one stream between two times: seeking with run-up, gaps, downmix, resampling.

Every sample has a place: number n (at the stream's own rate) is at media time n / rate. What the file marks as encoder
delay is cut by the decoder or here; samples before the stream's start and after its end do not exist and are given as
zeros. Time stamps that leave a hole of more than 50 ms put silence there, an overlap of more is cut; smaller deviations
are rounding, and the sound goes on without a seam. Resampling (soxr, high quality) works on blocks that begin where
both rates meet, with the filter's reach around them, so that any window equals a cut from the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from avssl.errors import MediaError, UsageError
from avssl.media.cursor import Cursor, stamp_of
from avssl.media.downmix import downmix
from avssl.media.limits import Limits
from avssl.media.types import Audio, Channels

_RUN_UP_S = 0.4  # decoded before the first wanted sample: MP3's bit reservoir, AAC's overlap, Opus' 80 ms
_NO_RUN_UP = ("flac", "alac", "pcm_")  # each packet stands alone
_BACK_S = (0.0, 2.0, 10.0)
_GAP_S = 0.05
_MISSING_S = 0.1  # so much may be lacking at the end; a third of it where the file is known to be cut
_CONTEXT_S = 0.05  # more than the reach of the resampling filter
_MOST_PLANES = 8  # from here on PyAV 18 reads past the end of a frame's list of planes: such frames are packed first
_SCALE = {"s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63, "dbl": 1.0}


class AudioReader:
    """Reads samples of `stream`. Times are media time; the arguments are those of `VideoReader`."""

    def __init__(
        self, cursor: Cursor, stream: Any, *, name: str, zero_s: Fraction, promised_end_s: Callable[[], float | None],
        ends_early: Callable[[], bool], limits: Limits,
    ):  # fmt: skip
        self._cursor, self._stream, self._name = cursor, stream, name
        self._zero_s, self._promised_end_s, self._ends_early = zero_s, promised_end_s, ends_early
        self._limits = limits
        self._tick_s: Fraction = stream.time_base
        self._start = stream.start_time or 0
        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "NONE", 1
        codec = self._context.codec.name
        if codec == "flac":
            self._context.options = {"err_detect": "crccheck+explode"}
        self._run_up_s = 0.0 if codec.startswith(_NO_RUN_UP) else _RUN_UP_S
        self._packer: Any = None
        self._facts: tuple[int, tuple[str, ...], str] | None = None
        self._first_stamp, self._first_samples = 0, 0

    def facts(self) -> tuple[int, tuple[str, ...], str]:
        """(rate in Hz, names of the channels, name of the layout), as decoded: headers may not know of SBR or PS."""
        if self._facts is None:
            self._cursor.use(self._stream)
            self._cursor.rewind(self._stream)
            stamp, frame = next(self._frames(self._cursor.packets(self._stream), math.inf), (0, None))
            if frame is None:
                reason = "truncated" if self._ends_early() else "corrupt"
                raise MediaError(self._name, reason, "nothing can be decoded from its sound stream")
            names = tuple(channel.name for channel in frame.layout.channels)
            if len(names) > self._limits.max_channels:
                raise MediaError(self._name, "too-large", f"{len(names)} sound channels are too many")
            if not 0 < frame.sample_rate <= self._limits.max_rate_hz:
                raise MediaError(self._name, "too-large", f"a sound rate of {frame.sample_rate} Hz is not accepted")
            self._facts = (frame.sample_rate, names, frame.layout.name)
            self._first_stamp, self._first_samples = stamp, frame.samples
        return self._facts

    def blocks(self, first: int, last: int | None, *, rate_hz: int, channels: Channels, block: int) -> Iterator[Audio]:
        """Samples `first` to `last` (default: the stream's end) at `rate_hz` without seams, `block` at a time.

        The last block may be shorter; there is at least one. Raises MediaError as `audio_between`.
        """
        if rate_hz <= 0 or block < 1 or (last is not None and last < first):
            raise UsageError(f"{self._name}: sound needs a rate and a length above 0 ({rate_hz} Hz)")
        if channels not in ("mono", "stereo", "all"):
            raise UsageError(f"channels must be mono, stereo or all, not {channels}")
        self._cursor.deadline.restart()
        grid = _Grid(self.facts()[0], rate_hz)
        at = first
        tape = _Tape(grid.begin(at), {"mono": 1, "stereo": 2}.get(channels) or len(self.facts()[1]))
        source = self._samples(tape.at, None if last is None else grid.end(last), channels)
        while True:
            stop = at + block if last is None else min(at + block, last)
            while tape.end < grid.end(stop):
                piece = next(source, None)
                if piece is None:
                    last = max(at, grid.out(tape.last_real)) if last is None else last
                    stop = min(stop, last)
                    break
                tape.append(*piece)
            begin = grid.begin(at)
            samples = grid.resample(tape.cut(begin, grid.end(stop)))
            skip = at - grid.out(begin)
            samples = np.ascontiguousarray(samples[:, skip : skip + stop - at])
            first_real = stop if tape.first_real is None else grid.out(tape.first_real)
            low = min(max(first_real, at), stop) - at
            high = max(min(grid.out(tape.last_real), stop) - at, low)
            samples[:, :low] = 0  # the filter rings a little over the ends
            samples[:, high:] = 0
            yield Audio(samples, rate_hz, at / rate_hz, (low, high))
            if stop == last:
                return
            self._cursor.deadline.restart()
            at = stop
            tape.forget(grid.begin(at))

    def _samples(self, begin: int, end: int | None, channels: Channels) -> Iterator[tuple[int, np.ndarray]]:
        """(place of the first sample, samples [C, S]), one after the other, cut to begin..end, at the stream's rate."""
        rate_hz = self.facts()[0]
        position: int | None = None
        start = round((self._start * self._tick_s - self._zero_s) * rate_hz)
        begin = max(begin, start)
        held: tuple[int, np.ndarray] | None = None
        begin_tick = math.floor((Fraction(begin, rate_hz) + self._zero_s) / self._tick_s)
        for stamp, frame in self._frames(self._packets_before(begin_tick), begin_tick):
            if frame.sample_rate != rate_hz:
                raise MediaError(self._name, "corrupt", f"its sound changes from {rate_hz} to {frame.sample_rate} Hz")
            samples = self._to_float(frame)
            place = self._place(frame, stamp, rate_hz, start)
            if channels == "all" and samples.shape[0] != len(self.facts()[1]):
                raise MediaError(self._name, "corrupt", "its sound changes the number of channels")
            samples = downmix(samples, tuple(channel.name for channel in frame.layout.channels), channels)
            if position is not None:
                hole = place - position
                if abs(hole) <= _GAP_S * rate_hz:
                    place = position
                elif hole > 0:
                    if held is not None:
                        yield held
                    held = None
                    yield from self._silence(max(position, begin), place if end is None else min(place, end), samples)
                else:
                    samples, place = samples[:, -hole:], position
            position = place + samples.shape[1]
            if held is not None:
                yield held
                held = None
            low = max(begin - place, 0)
            high = samples.shape[1] if end is None else min(end - place, samples.shape[1])
            if low < high:
                held = (place + low, samples[:, low:high])
            if end is not None and position >= end:
                break
        else:
            self._judge_end(begin if position is None else position, end, rate_hz)
            if held is not None and (promised_s := self._promised_end_s()) is not None:
                # The last packet of AAC or MP3 is full; what lies beyond the stream's duration is padding.
                held = (held[0], held[1][:, : max(round(promised_s * rate_hz) - held[0], 0)])
        if held is not None and held[1].shape[1]:
            yield held

    def _to_float(self, frame: Any) -> np.ndarray:
        """float32 [C, S], full scale at 1."""
        channels = frame.layout.nb_channels
        if frame.format.is_planar and channels >= _MOST_PLANES:
            if self._packer is None:
                self._packer = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
            return np.concatenate([packed.to_ndarray() for packed in self._packer.resample(frame)], axis=1).reshape(
                -1, channels
            ).T  # fmt: skip
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, channels).T
        kind = frame.format.name.removesuffix("p")
        if kind == "flt":
            return samples
        if kind == "u8":
            return (samples.astype(np.float32) - 128) / 128
        return np.multiply(samples, _SCALE[kind], dtype=np.float32)

    def _silence(self, begin: int, end: int, like: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Zeros from `begin` to `end`, in pieces, for a hole in the time stamps."""
        rate_hz = self.facts()[0]
        if end > self._limits.max_duration_s * rate_hz:
            raise MediaError(self._name, "corrupt", f"its sound jumps to {end / rate_hz:.0f} s")
        for at in range(begin, end, rate_hz):
            yield at, np.zeros((like.shape[0], min(rate_hz, end - at)), np.float32)

    def _place(self, frame: Any, stamp: int, rate_hz: int, start: int) -> int:
        """Number of the frame's first sample. Time stamps coarser than a sample are put on the grid of whole frames."""
        first_end = start + self._first_samples
        if stamp == self._first_stamp:  # some demuxers do not cut the encoder delay again after a seek
            return first_end - frame.samples
        exact = ((frame.pts if frame.pts is not None else stamp) * self._tick_s - self._zero_s) * rate_hz
        if self._tick_s * rate_hz > 2:
            on_grid = first_end + round((exact - first_end) / frame.samples) * frame.samples
            if abs(on_grid - exact) <= self._tick_s * rate_hz:
                return on_grid
        return round(exact)

    def _packets_before(self, tick: int) -> Iterator[Any]:
        """Packets from enough before `tick` that the sound is right when it comes there."""
        self._cursor.use(self._stream)
        tick_s = float(self._tick_s)
        target = tick - math.ceil(self._run_up_s / tick_s)
        for distance_s in _BACK_S:
            earlier = target - round(distance_s / tick_s)
            if earlier <= self._start or not self._cursor.seek(self._stream, earlier):
                break
            packets = self._cursor.packets(self._stream)
            first = next(packets, None)
            stamp = None if first is None else stamp_of(first)
            if stamp is not None and stamp <= target:
                return self._near(first, packets, target)
        self._cursor.rewind(self._stream)
        return self._near(None, self._cursor.packets(self._stream), target)

    def _near(self, first: Any, packets: Iterator[Any], target: int) -> Iterator[Any]:
        """Leave out packets that end before `target`, save the stream's first one, which carries the encoder delay."""
        if first is not None:
            packets = _chain(first, packets)
        for packet in packets:
            stamp = stamp_of(packet)
            if stamp is None or stamp + (packet.duration or 0) >= target:
                yield packet

    def _frames(self, packets: Iterator[Any], begin_tick: float) -> Iterator[tuple[int, Any]]:
        """(time stamp of the packet, decoded frame).

        A packet from `begin_tick` on that cannot be decoded, between two that can, is an error.
        """
        any_good = broken = False
        stamp = self._start
        for packet in packets:
            known = stamp_of(packet)
            stamp = stamp if known is None else known
            try:
                frames = self._context.decode(packet)
            except (av.error.FFmpegError, EOFError):
                broken = broken or (any_good and stamp >= begin_tick)
                continue
            for frame in frames:
                if broken or (frame.is_corrupt and any_good and stamp >= begin_tick):
                    at = float(stamp * self._tick_s - self._zero_s)
                    reason = "truncated" if self._ends_early() else "corrupt"
                    raise MediaError(self._name, reason, f"the sound before {at:.3f} s is damaged")
                if frame.samples:
                    any_good = True
                    yield stamp, frame
        try:
            yield from ((stamp, frame) for frame in self._context.decode(None) if frame.samples)
        except (av.error.FFmpegError, EOFError):
            return

    def _judge_end(self, position: int, end: int | None, rate_hz: int) -> None:
        """The stream has ended at `position`; sound was wanted until `end`."""
        asked_s = math.inf if end is None else end / rate_hz
        end_s, promised_s = position / rate_hz, self._promised_end_s()
        cut = self._ends_early()
        expected_s = asked_s if promised_s is None else min(promised_s, asked_s)
        if end_s < expected_s - (_MISSING_S / 3 if cut else _MISSING_S) and (cut or promised_s is not None):
            until = f" of {promised_s:.3f} s" if promised_s is not None else ""
            raise MediaError(self._name, "truncated", f"its sound ends after {end_s:.3f} s{until}")


class _Grid:
    """Where samples of two rates coincide: every `step` samples of the source, `out_step` of the result."""

    def __init__(self, source_hz: int, rate_hz: int):
        self._source_hz, self._rate_hz = source_hz, rate_hz
        common = math.gcd(source_hz, rate_hz)
        self._step, self._out_step = source_hz // common, rate_hz // common
        self._context = 0 if source_hz == rate_hz else math.ceil(_CONTEXT_S * common)

    def begin(self, place: int) -> int:
        """First source sample needed for results from `place` on; always a common place."""
        return (place // self._out_step - self._context) * self._step

    def end(self, place: int) -> int:
        """One past the last source sample needed for results before `place`."""
        return (-(-place // self._out_step) + self._context) * self._step

    def out(self, place: int) -> int:
        """The result's sample at the time of the source's sample `place`."""
        return round(Fraction(place * self._rate_hz, self._source_hz))

    def resample(self, samples: np.ndarray) -> np.ndarray:
        if self._source_hz == self._rate_hz:
            return samples
        import soxr

        return soxr.resample(np.ascontiguousarray(samples.T), self._source_hz, self._rate_hz, quality="HQ").T


class _Tape:
    """A growing stretch of samples with a place; where nothing was recorded it is silent."""

    def __init__(self, at: int, channels: int):
        self.at, self._channels = at, channels
        self._pieces: list[np.ndarray] = []
        self.end = at
        self.first_real: int | None = None
        self.last_real = at

    def append(self, place: int, samples: np.ndarray) -> None:
        if place > self.end:
            self._pieces.append(np.zeros((self._channels, place - self.end), np.float32))
        self._pieces.append(samples)
        self.end = self.last_real = place + samples.shape[1]
        if self.first_real is None:
            self.first_real = place

    def cut(self, begin: int, end: int) -> np.ndarray:
        silence = max(end - self.end, 0)
        if silence or not self._pieces:
            self._pieces.append(np.zeros((self._channels, silence), np.float32))
            self.end += silence
        if len(self._pieces) > 1:
            self._pieces = [np.concatenate(self._pieces, axis=1)]
        return self._pieces[0][:, begin - self.at : end - self.at]

    def forget(self, before: int) -> None:
        if self._pieces and before > self.at:
            self._pieces[0] = self._pieces[0][:, before - self.at :]
            self.at = before


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
