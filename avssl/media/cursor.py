"""Where a container stands, shared by the readers of its streams: seeking and reading packets, with the time limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
from av.stream import Discard

from avssl.errors import MediaError
from avssl.media.guard import NestedOpenError
from avssl.media.limits import Deadline

# What FFmpeg says of the file. A plain OSError (a disk or network that fails) is no fault of the file, and passes.
_FAILURES = (av.error.FFmpegError, EOFError, NestedOpenError)


class Cursor:
    """The position in one open container. Only one reader reads at a time; each begins with `seek` or `rewind`.

    `can_seek`: whether time stamps after a seek are the right ones (else reading always begins at the start).
    """

    def __init__(self, container: Any, name: str, deadline: Deadline, *, can_seek: bool):
        self._container, self._name, self.deadline, self.can_seek = container, name, deadline, can_seek
        self._fresh = True  # nothing was read yet

    def use(self, stream: Any) -> None:
        """Have the demuxer leave out the packets of all other streams."""
        for other in self._container.streams:
            other.discard = Discard.default if other.index == stream.index else Discard.all

    def seek(self, stream: Any, tick: int) -> bool:
        """Go to a packet from which what is shown at `tick` can be decoded, if the demuxer finds one."""
        return self.can_seek and self._go(stream, tick)

    def _go(self, stream: Any, tick: int) -> bool:
        self._fresh = False
        try:
            self._container.seek(tick, stream=stream, backward=True)
        except _FAILURES:
            return False
        return True

    def rewind(self, stream: Any) -> None:
        """Go to the first packet of the file."""
        if self._fresh:
            self._fresh = False
            return
        start = stream.start_time or 0
        # Demuxers with an index go to its first entry; others only accept times that exist.
        if not (self._go(stream, min(start, 0) - (1 << 30)) or self._go(stream, start)):
            raise MediaError(self._name, "corrupt", "its start cannot be found again")

    def packets(self, stream: Any) -> Iterator[Any]:
        """Packets of `stream` from here on. What cannot be read ends them like the end of the file does."""
        try:
            for packet in self._container.demux(stream):
                self.deadline.check()
                if packet.size:
                    yield packet
        except av.error.ExitError:
            raise self.deadline.passed() from None
        except (*_FAILURES, IndexError):  # IndexError: PyAV, where damage made a stream appear late
            return


def stamp_of(thing: Any, ordinal: bool = False) -> int | None:
    """Time stamp of a packet or frame in ticks; without one, or with `ordinal`, the order of decoding serves."""
    return thing.dts if ordinal or thing.pts is None else thing.pts
