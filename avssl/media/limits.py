"""How much a media file may ask for before it is refused: caps that no honest clip meets, against hostile headers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from avssl.errors import MediaError


@dataclass(frozen=True)
class Limits:
    """Caps on one opened file. Beyond them `MediaError` with reason `too-large` (or `timeout`) is raised."""

    max_bytes: int = 64 << 30
    max_pixels: int = 8192 * 4320
    """Of one picture, as stored. Checked before memory is taken, and again by the decoder for every picture."""
    max_duration_s: float = 24 * 3600.0
    max_streams: int = 32
    max_channels: int = 16
    max_rate_hz: int = 768_000
    timeout_s: float = 120.0
    """Wall-clock time of one operation: opening, one `frames_at` or `audio_between`, one chunk of an iterator."""


DEFAULT_LIMITS = Limits()


class Deadline:
    """The wall-clock limit of one operation; `check` is called between packets."""

    def __init__(self, name: str, timeout_s: float):
        self._name, self._timeout_s = name, timeout_s
        self.restart()

    def restart(self) -> None:
        self._end = time.monotonic() + self._timeout_s

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise self.passed()

    def passed(self) -> MediaError:
        return MediaError(self._name, "timeout", f"reading takes longer than {self._timeout_s:g} s")
