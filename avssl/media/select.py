"""Which decoded picture is shown at each wanted time: exact, by time stamp, wherever the reading starts.

The picture shown at time t is the last one whose time stamp is not after t. Packets are read a little ahead of the
decoder, so that the interval each picture is shown in is known before it is decoded. Two things follow. Pictures that
no other refers to and nobody wants are skipped by the decoder (bit-exact). And a picture that was promised by a
packet but does not come out of the decoder is noticed: damage is an error, never a silent repetition.

Times here are integers in ticks of the stream's time base.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av

from avssl.media.cursor import stamp_of

_UNKNOWN, _INTRA = 0, 1  # AV_PICTURE_TYPE_NONE, AV_PICTURE_TYPE_I
_CAN_SKIP = frozenset(("h264", "hevc", "mpeg4", "mpeg1video", "mpeg2video"))  # decoders that heed it packet by packet
_MAY_BE_SILENT = frozenset(
    ("mpeg4", "msmpeg4", "msmpeg4v1", "msmpeg4v2", "h263", "flv", "wmv1", "wmv2", "wmv3", "vc1", "vp8", "theora")
)
"""Codecs with packets that show nothing new (dropped pictures, hidden references): the picture before stays."""
_REORDER = 16  # no codec decodes more pictures ahead of one that is shown before them


class LostPictureError(Exception):
    """A wanted picture did not come out of the decoder whole. `tick`: its time stamp; `early`: nothing whole came
    before it in this pass, so that a pass from further back may find it."""

    def __init__(self, tick: int, early: bool):
        super().__init__(tick, early)
        self.tick, self.early = tick, early


class Wanted:
    """Wanted times, non-decreasing, drawn from any iterator no further than needed."""

    def __init__(self, ticks: Iterator[int]):
        self._ticks = ticks
        self._ahead: list[int] = []
        self.served = 0
        self.exhausted = False

    def _reach(self, tick: int) -> None:
        while not self.exhausted and (not self._ahead or self._ahead[-1] < tick):
            following = next(self._ticks, None)
            if following is None:
                self.exhausted = True
            else:
                self._ahead.append(following)

    def first(self, after: int = 0) -> int | None:
        """The first time not served yet, or the one `after` places later, or None where there is none."""
        while len(self._ahead) <= after and not self.exhausted:
            self._reach((self._ahead[-1] if self._ahead else -(1 << 62)) + 1)
        return self._ahead[after] if len(self._ahead) > after else None

    def count_between(self, start: int, end: int) -> int:
        """How many unserved times t have start <= t < end."""
        self._reach(end)
        return bisect_left(self._ahead, end) - bisect_left(self._ahead, start)

    def serve_before(self, end: int) -> int:
        """Take away the times before `end`; how many they were."""
        count = self.count_between(-(1 << 62), end)
        del self._ahead[:count]
        self.served += count
        return count


class Pass:
    """One run through the packets of a stream from a key frame on.

    `packets`: in decoding order, the first one a key frame. `at_start`: it is the stream's first. `jump(last, wanted)`:
    whether seeking to `wanted` would save decoding after packets up to `last`. `finish(end, wanted)`: called at the end
    of the stream with the tick where its last picture ends; returns the tick until which that picture is held.
    `failed`: called after a packet that could not be decoded. `dts_known`: decoding times are the container's own, not
    guesses. `ordinal`: there are no presentation times, as in AVI; pictures take the decoding times in order. `strict`:
    the pass is worth nothing where its first picture is not a whole one of its own (streams that refresh themselves
    part by part have no key frames).
    """

    def __init__(
        self, context: Any, packets: Iterator[Any], wanted: Wanted, *, at_start: bool, strict: bool, interval: int,
        dts_known: bool, ordinal: bool, jump: Callable[[int, int], bool],
        finish: Callable[[int, int | None], int], failed: Callable[[], None],
    ):  # fmt: skip
        self._context, self._packets, self._wanted = context, packets, wanted
        self._at_start, self._strict, self._interval, self._ordinal = at_start, strict, interval, ordinal
        self._dts_known, self._jump, self._finish, self._failed = dts_known, jump, finish, failed
        self._skips = context.codec.name in _CAN_SKIP and not ordinal
        self._silent = context.codec.name in _MAY_BE_SILENT
        self._window: deque[tuple[Any, int]] = deque()  # (packet, time stamp) read but not decoded
        self._stamps: list[int] = []  # time stamps of the packets around, sorted
        self._newest_dts: int | None = None
        self._ended = False
        self._key = 0  # time stamp of the first key frame
        self._last_duration = 0
        # Wanted pictures sent to the decoder: time stamp -> (end of being shown, whether an error came before it).
        self._chosen: dict[int, tuple[int, bool]] = {}
        self._covered_before = self._covered = wanted.served  # wanted times served, or of a chosen picture
        self._pending: list[int] = []  # time stamps in the decoder, for `ordinal`
        self._latest: Any = None
        self._broken = False  # a packet could not be decoded since the last key frame
        self._damaged = False  # a picture came out marked as damaged since the last key frame
        self._failures = 0

    def run(self) -> Iterator[tuple[Any, int, int]]:
        """Yields (frame, its time stamp, number of wanted times it serves), in order of time."""
        self._read()
        if not self._window:
            return
        self._key = self._stamps[0]
        while self._window:
            packet, stamp = self._window.popleft()
            end = self._end_of(stamp)
            start = stamp
            if self._at_start and stamp == self._stamps[0] and stamp <= self._key:
                start = -(1 << 62)  # before the first picture the first picture is shown
            count = self._wanted.count_between(start, end)
            self._broken = (self._broken and not packet.is_keyframe) or packet.is_corrupt
            if count and stamp not in self._chosen:
                self._chosen[stamp] = end, self._broken
                self._covered += count
            if self._skips:
                self._context.skip_frame = "DEFAULT" if count else "NONREF"
            if self._ordinal:
                self._pending.append(stamp)
            yield from self._decode(packet)
            following = self._wanted.first(self._covered - self._wanted.served)
            # Everything wanted so far is in the decoder: the rest is worth reading only up to where a seek is better.
            if not self._ordinal or not self._chosen:
                last = self._stamps[-1]
                if following is None:
                    break
                if following > last and self._covered > self._covered_before and self._jump(last, following):
                    break
            if not self._window:
                self._read()
            if len(self._stamps) > 8 * _REORDER:
                del self._stamps[: 4 * _REORDER]
        yield from self._decode(None)
        for stamp, (end, _) in sorted(self._chosen.items()):
            yield from self._make_do(stamp, end)

    def _read(self) -> None:
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return
        stamp = stamp_of(packet, self._ordinal)
        if stamp is None:
            stamp = self._stamps[-1] + self._interval if self._stamps else 0
        self._window.append((packet, stamp))
        insort(self._stamps, stamp)
        if stamp == self._stamps[-1]:
            self._last_duration = packet.duration or self._interval
        if packet.dts is not None:
            self._newest_dts = packet.dts

    def _end_of(self, stamp: int) -> int:
        """When the picture at `stamp` gives way to the next; reads as far as needed to be sure."""
        while True:
            place = bisect_right(self._stamps, stamp)
            if place < len(self._stamps):
                following = self._stamps[place]
                passed = self._dts_known and self._newest_dts is not None and self._newest_dts >= following
                if passed or self._ended or len(self._stamps) - place > _REORDER:
                    return following
            if self._ended:
                end = stamp + max(self._last_duration, 1)
                return self._finish(end, self._wanted.first(self._covered - self._wanted.served))
            self._read()

    def _decode(self, packet: Any) -> Iterator[tuple[Any, int, int]]:
        try:
            frames = self._context.decode(packet)
        except (av.error.FFmpegError, EOFError):
            self._broken = True
            self._failures += 1
            self._failed()
            return
        for number, frame in enumerate(frames):
            stamp = self._next_in_order(len(frames) - number, packet) if self._ordinal else stamp_of(frame)
            if stamp is not None:
                yield from self._receive(frame, stamp)

    def _next_in_order(self, coming: int, packet: Any) -> int | None:
        """The time stamp of the next picture where only the order is known.

        As many packets as the decoder holds back have no picture yet; all earlier ones without had none at all.
        """
        held_back = coming - 1 if packet is None else self._context.reorder_depth
        place = len(self._pending) - 1 - held_back
        if not self._pending:
            return None
        stamp = self._pending[max(place, 0)]
        del self._pending[: max(place, 0) + 1]
        return stamp

    def _receive(self, frame: Any, stamp: int) -> Iterator[tuple[Any, int, int]]:
        if self._strict and self._latest is None and frame.pict_type not in (_UNKNOWN, _INTRA):
            raise LostPictureError(stamp, early=True)
        if frame.is_corrupt:
            self._damaged = True
        elif frame.key_frame:
            self._damaged = False
        missed = sorted(wanted for wanted in self._chosen if wanted < stamp) if self._chosen else []
        if missed and self._latest is None and self._at_start and stamp <= self._key:
            # The stream begins with pictures whose references were cut away: the first whole one stands for them.
            for early in missed:
                del self._chosen[early]
            missed = []
        for early in missed:
            if len(missed) > 1 and not self._silent:
                raise LostPictureError(early, self._latest is None)
            yield from self._make_do(early, self._chosen.pop(early)[0])
        end, after_error = self._chosen.pop(stamp, (None, False))
        if end is not None and (self._damaged or after_error):
            raise LostPictureError(stamp, self._latest is None)
        if not self._damaged:
            self._latest = (frame, stamp)
        if end is not None:
            yield frame, stamp, self._wanted.serve_before(end)

    def _make_do(self, stamp: int, end: int) -> Iterator[tuple[Any, int, int]]:
        """A packet showed nothing new: the picture before stays, unless there is damage."""
        if self._damaged or self._failures or self._latest is None:
            raise LostPictureError(stamp, self._latest is None)
        yield *self._latest, self._wanted.serve_before(end)
