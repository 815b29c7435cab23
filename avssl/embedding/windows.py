"""Which spans of a file get a row, and which clips of the model's length describe each span.

A window is a span of time chosen by the user; a clip is what the model looks at in one go (for instance 8 frames
at 16 frames a second, or 2 s of sound). Clips start on the model's own grid of frames or samples, so windows that
overlap share clips, and a clip is decoded and encoded once however many windows it serves.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# A stream counts as present in a window if it covers at least this part of it; a rest at the end of a file that is
# shorter than this part of the hop (or window) makes no window of its own: sound often outlasts the picture by a frame.
LEAST_PART = 0.1

_TINY = 1e-6  # seconds or grid steps: rounding of container times, far below a frame or a sample


@dataclass(frozen=True)
class Window:
    """A span of a file in seconds of media time; `end_s` is never after the end of the file."""

    start_s: float
    end_s: float


def plan_windows(duration_s: float, window_s: float, hop_s: float) -> Iterator[Window]:
    """Windows start at 0, hop, 2 hop, … until one reaches the end; the last is cut at the end of the file.

    There is always at least one, so a file shorter than a window gives one row.
    """
    rest_s = LEAST_PART * min(window_s, hop_s)
    for number in range(math.ceil(duration_s / hop_s) + 1):
        start_s = round(number * hop_s, 6)
        end_s = min(start_s + window_s, duration_s)
        yield Window(start_s, round(end_s, 6))
        if duration_s - max(end_s, (number + 1) * hop_s) < max(rest_s, _TINY):
            return


@dataclass(frozen=True)
class ClipGrid:
    """The grid of one stream: `rate` steps a second (frames or samples), clips of `length` steps.

    Steps are counted from the stream's own start, which is at `start_s` of media time; it ends at `end_s`.
    """

    rate: float
    length: int
    start_s: float
    end_s: float

    @property
    def total(self) -> int:
        """Steps in the stream, at least 1."""
        return max(1, math.ceil((self.end_s - self.start_s) * self.rate - _TINY * self.rate))

    def starts(self, window: Window) -> list[int]:
        """First steps of the clips that describe `window`, ascending; empty if the stream is not present in it.

        As many clips as fit, at least one, are spread evenly over the part of the window that the stream covers.
        A clip that would reach over an end of the stream is moved inside; a stream shorter than a clip gives the clip
        that starts at its first step.
        """
        first, last = self._covered(window)
        part = last - first
        if part <= 0 or part < LEAST_PART * (window.end_s - window.start_s) * self.rate:
            return []
        count = max(1, math.floor(part / self.length + _TINY))
        middles = (first + (n + 0.5) * part / count for n in range(count))
        return sorted({self._inside(middle - self.length / 2) for middle in middles})

    def earliest(self, window: Window) -> int:
        """No clip of this window or of a later one starts before this step."""
        first, last = self._covered(window)
        return self._inside(min(first, (first + last - self.length) / 2))

    def _covered(self, window: Window) -> tuple[float, float]:
        """The part of the window that the stream covers, in (fractional) steps."""
        first_s, last_s = max(window.start_s, self.start_s), min(window.end_s, self.end_s)
        return (first_s - self.start_s) * self.rate, (last_s - self.start_s) * self.rate

    def _inside(self, start: float) -> int:
        return min(max(math.floor(start + 0.5), 0), max(0, self.total - self.length))


def clips_in_order(grid: ClipGrid, windows: Iterable[Window]) -> Iterator[int]:
    """The first steps of all clips that `windows` need, ascending, each once; memory as for one window."""
    waiting: list[int] = []
    last = -1
    for window in windows:
        earliest = grid.earliest(window)
        while waiting and waiting[0] < earliest:
            if (start := heapq.heappop(waiting)) != last:
                yield (last := start)
        for start in grid.starts(window):
            heapq.heappush(waiting, start)
    while waiting:
        if (start := heapq.heappop(waiting)) != last:
            yield (last := start)
