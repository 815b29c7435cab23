"""Which moments of a sample are seen and heard (the sampling of the AVID code).

All times are seconds from the start of the stored clip, where both its streams start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_ROUNDING_S = 1e-6  # far below a frame, far above the rounding of a time in float64


@dataclass(frozen=True)
class Span:
    """A stream of a stored clip and the window wanted from it."""

    end_s: float
    window_s: float

    @property
    def latest_s(self) -> float:
        """The latest start of a window that ends inside the stream; 0 where the stream is too short."""
        return max(0.0, self.end_s - self.window_s)


def random_starts(
    generator: np.random.Generator, clips: int, video: Span | None, audio: Span | None, offset_s: float
) -> np.ndarray:
    """Random window starts [clips, 2] in s: (video, audio), nan for a modality that is not wanted.

    The longer window is placed first, uniformly where both fit; the shorter one then starts uniformly between
    `offset_s` before the longer one's start and such that it ends `offset_s` after its end, clipped to its stream.
    """
    return _starts(generator.random((clips, 2)), video, audio, offset_s)


def even_starts(clips: int, video: Span | None, audio: Span | None) -> np.ndarray:
    """Window starts [clips, 2] spaced evenly from the first to the last possible, the shorter window centred in the
    longer one. A single clip is taken from the middle."""
    places = np.linspace(0, 1, clips) if clips > 1 else np.array([0.5])
    return _starts(np.stack([places, np.full(clips, 0.5)], 1), video, audio, offset_s=0.0)


def _starts(places: np.ndarray, video: Span | None, audio: Span | None, offset_s: float) -> np.ndarray:
    """Window starts from places in [0, 1]: column 0 places the longer window, column 1 the shorter one."""
    starts = np.full((len(places), 2), np.nan)
    if video is None or audio is None:
        column, only = (1, audio) if video is None else (0, video)
        assert only is not None, "one modality is wanted"
        starts[:, column] = places[:, 0] * only.latest_s
        return starts
    first, long, short = (1, audio, video) if audio.window_s >= video.window_s else (0, video, audio)
    start = places[:, 0] * min(long.latest_s, short.latest_s)
    low = np.clip(start - offset_s, 0, short.latest_s)
    high = np.clip(start + long.window_s + offset_s - short.window_s, low, short.latest_s)
    starts[:, first] = start
    starts[:, 1 - first] = low + places[:, 1] * (high - low)
    return starts


def snap(starts: np.ndarray, fps: float) -> np.ndarray:
    """Move video starts back to the frame shown then, and audio starts by as much, so that both stay in step."""
    frame_s = np.floor(starts[:, 0] * fps + _ROUNDING_S) / fps
    audio_s = np.maximum(0, starts[:, 1] + frame_s - starts[:, 0])
    return np.stack([frame_s, audio_s], 1)


def frame_times(start_s: float, frames: int, fps: float, end_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Times to decode and which of them each of the `frames` shows.

    Frame k is the one shown at start + k / fps. Where the stream ends first, the frames that exist are repeated
    from the clip's start: `(times, index)` with `times[index]` of length `frames`.
    """
    exist = min(frames, max(1, math.ceil((end_s - start_s) * fps - _ROUNDING_S)))
    return start_s + np.arange(exist) / fps, np.arange(frames) % exist
