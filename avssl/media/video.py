"""Pictures of one video stream at wanted times: seeking, the ends of the stream, damage.

Seeking only ever decides how fast an answer comes, not which: reading starts at a key frame shown no later than the
first wanted time, and goes further back where that did not give a whole picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any

from avssl.errors import MediaError, UsageError
from avssl.media.cursor import Cursor, stamp_of
from avssl.media.limits import Limits
from avssl.media.select import LostPictureError, Pass, Wanted

HOLD_S = 0.5
"""How long the last picture stays after its end: containers' durations are often a little longer than the pictures."""
_TOLERANCE_S = 5e-4  # containers round time stamps, Matroska to milliseconds
_BACK_S = (0.0, 2.0, 10.0)  # how far before the wanted time to look for a key frame; then from the start
_EXACT_S = 60.0  # without key frames, reading from the start is exact; later than this a run-up must do
_JUMP_S = 10.0  # a wait that is worth a seek where there is no index of key frames


def tick_tolerance(tick_s: float) -> float:
    """How many ticks after a wanted time a picture may begin and still be shown then."""
    return min(0.5, _TOLERANCE_S / tick_s) + 1e-6


class VideoReader:
    """Reads pictures of `stream`. Times are media time: seconds after `zero_s` of the file's own clock.

    `promised_end_s`: says where the header exactly puts this stream's end (else None). `ends_early`: whether the file
    is known to be cut. `ordinal`, `dts_known`: see `Pass`.
    """

    def __init__(
        self, cursor: Cursor, stream: Any, *, name: str, zero_s: Fraction, fps: float, ordinal: bool, dts_known: bool,
        promised_end_s: Callable[[], float | None], ends_early: Callable[[], bool], limits: Limits,
    ):  # fmt: skip
        self._cursor, self._stream, self._name = cursor, stream, name
        self._tick_s = float(stream.time_base)
        self._zero = float(zero_s / stream.time_base)
        self._interval = max(1, round(1 / (fps * self._tick_s))) if fps > 0 else 1
        self._promised_end_s, self._ends_early, self._limits = promised_end_s, ends_early, limits
        self._ordinal, self._dts_known = ordinal, dts_known
        self._context = stream.codec_context
        self._context.thread_type, self._context.thread_count = "NONE", 1
        self._context.options = {"max_pixels": str(limits.max_pixels)}
        self._had_size = self._context.width > 0
        self._start = stream.start_time or 0
        self.end_s: float | None = None
        """Media time at which the last picture ends, once the end was met."""

    def restart_clock(self) -> None:
        """Let the time limit begin anew: the caller has done something else in between."""
        self._cursor.deadline.restart()

    def time_s(self, stamp: int) -> float:
        return (stamp - self._zero) * self._tick_s

    def frames(self, times_s: Iterable[float], *, until_end: bool = False) -> Iterator[tuple[Any, float, int]]:
        """(frame, time it began to be shown, number of wanted times it serves), for non-decreasing `times_s`.

        With `until_end` the times may go on for ever, and the last picture of a whole stream ends them.
        Raises MediaError: `truncated`, `corrupt`, `out-of-range`, `timeout`, `too-large`.
        """
        self._cursor.deadline.restart()
        self._cursor.use(self._stream)
        self._until_end = until_end
        wanted = Wanted(self._ticks(times_s))
        back = 0
        while (first := wanted.first()) is not None:
            self._over = False
            served = wanted.served
            packets, at_start = self._from_key_frame(first, back)
            run_up_serves = back == len(_BACK_S) - 1 and (first - self._start) * self._tick_s > _EXACT_S
            try:
                run = Pass(
                    self._context, packets, wanted, at_start=at_start, strict=not at_start and not run_up_serves,
                    interval=self._interval, dts_known=self._dts_known, ordinal=self._ordinal, jump=self._jump,
                    finish=self._finish, failed=self._refuse_large,
                )  # fmt: skip
                for frame, stamp, count in run.run():
                    if count:
                        yield frame, self.time_s(stamp), count
            except LostPictureError as lost:
                if at_start or not lost.early:
                    at = self.time_s(lost.tick)
                    reason, fault = ("truncated", "cut off") if self._ends_early() else ("corrupt", "damaged")
                    raise MediaError(self._name, reason, f"the picture at {at:.3f} s is {fault}") from None
                back = back + 1 if wanted.served == served else 0
                continue
            if self._over:
                break
            back = 0
            if wanted.served == served:
                raise MediaError(self._name, "corrupt", f"no picture can be decoded at {self.time_s(first):.3f} s")
        if not until_end and (first := wanted.first()) is not None:
            late = f"time {self.time_s(first):.3f} s is after the pictures' end at {self.end_s:.3f} s"
            raise MediaError(self._name, "out-of-range", late)

    def _ticks(self, times_s: Iterable[float]) -> Iterator[int]:
        tolerance = tick_tolerance(self._tick_s)
        before = -math.inf
        for time_s in times_s:
            if not time_s >= before:
                raise UsageError(f"{self._name}: wanted times must not decrease ({before} s, then {time_s} s)")
            before = time_s
            yield math.floor(time_s / self._tick_s + self._zero + tolerance)

    def _from_key_frame(self, tick: int, back: int) -> tuple[Iterator[Any], bool]:
        """Packets from a key frame shown not after `tick`, or all; and whether they are the stream's first."""
        for distance_s in _BACK_S[back:]:
            target = tick - round(distance_s / self._tick_s)
            if target <= self._start + self._interval:
                break
            if not self._cursor.seek(self._stream, target):
                break
            packets = self._packets()
            first = next(packets, None)
            stamp = None if first is None else stamp_of(first, self._ordinal)
            if stamp is not None and stamp <= tick:
                return itertools.chain((first,), packets), False
            if first is None and self._ends_early():
                where = f"the file is cut off before the picture at {self.time_s(tick):.3f} s"
                raise MediaError(self._name, "truncated", where)
        self._cursor.rewind(self._stream)
        return self._packets(), True

    def _packets(self) -> Iterator[Any]:
        """Packets from the next key frame on."""
        return itertools.dropwhile(lambda packet: not packet.is_keyframe, self._cursor.packets(self._stream))

    def _refuse_large(self) -> None:
        """The decoder refuses pictures above the limit, and then forgets the size or keeps the one it refused."""
        pixels = self._context.width * self._context.height
        if pixels > self._limits.max_pixels or (pixels == 0 and self._had_size):
            raise MediaError(self._name, "too-large", f"its pictures have more than {self._limits.max_pixels} pixels")

    def _jump(self, last: int, wanted: int) -> bool:
        if wanted - last <= 2 * self._interval or not self._cursor.can_seek:
            return False
        index = self._stream.index_entries
        if len(index) > 1:
            place = index.search_timestamp(wanted, backward=True)
            return place >= 0 and index[place].timestamp > last + self._interval
        return (wanted - last) * self._tick_s > _JUMP_S

    def _finish(self, end: int, wanted: int | None) -> int:
        """Judge the end of the stream at tick `end` when times from `wanted` on are still asked for."""
        self._over = True
        self.end_s = self.time_s(end)
        asked = self._until_end or (wanted is not None and wanted >= end)
        promised, cut = self._promised_end_s(), self._ends_early()
        if promised is not None and not self._until_end and wanted is not None:
            promised = min(promised, max(self.time_s(wanted), self.end_s))
        # Headers that do not agree with themselves by a picture are common; a file that is cut is not believed that.
        slack_s = (0.5 if cut else 1.5) * self._interval * self._tick_s + (0 if cut else 0.05)
        if asked and (cut if promised is None else self.end_s < promised - slack_s):
            until = f" of {promised:.3f} s" if promised is not None else ""
            raise MediaError(self._name, "truncated", f"its pictures end after {self.end_s:.3f} s{until}")
        if self._until_end:
            return end
        return end + max(self._interval, round(HOLD_S / self._tick_s))
