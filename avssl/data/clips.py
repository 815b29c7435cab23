"""Which moments of a sample are seen and heard (the sampling of the AVID code).

All times are seconds from the start of the stored clip, where both its streams start. Plain floats: right after a
frame was decoded nothing of NumPy is in the processor's cache, and its calls on a few numbers cost more than they do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-6  # of a frame: far above the rounding of a time in float64

Starts = tuple[float, float]
"""Where the video clip and the audio window start, nan for a modality that is not wanted."""


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
) -> list[Starts]:
    """Random starts of `clips` pairs of windows.

    The longer window is placed first, uniformly where both fit; the shorter one then starts uniformly between
    `offset_s` before the longer one's start and such that it ends `offset_s` after its end, clipped to its stream.
    """
    places = generator.random((clips, 2)).tolist()
    return [_place(first, second, video, audio, offset_s) for first, second in places]


def even_starts(clips: int, video: Span | None, audio: Span | None) -> list[Starts]:
    """Starts spaced evenly from the first to the last possible, the shorter window centred in the longer one.
    A single clip is taken from the middle."""
    places = [k / (clips - 1) for k in range(clips)] if clips > 1 else [0.5]
    return [_place(place, 0.5, video, audio, offset_s=0.0) for place in places]


def _place(first: float, second: float, video: Span | None, audio: Span | None, offset_s: float) -> Starts:
    """Starts from places in [0, 1]: `first` places the longer window, `second` the shorter one."""
    if audio is None:
        return (first * video.latest_s if video else math.nan), math.nan
    if video is None:
        return math.nan, first * audio.latest_s
    long, short = (audio, video) if audio.window_s >= video.window_s else (video, audio)
    start = first * min(long.latest_s, short.latest_s)
    low = min(max(start - offset_s, 0.0), short.latest_s)
    high = min(max(start + long.window_s + offset_s - short.window_s, low), short.latest_s)
    other = low + second * (high - low)
    return (other, start) if long is audio else (start, other)


def snap(starts: Starts, fps: float) -> Starts:
    """Move a video start back to the frame shown then, and the audio start by as much, so that both stay in step."""
    video_s, audio_s = starts
    frame_s = math.floor(video_s * fps + _ROUNDING) / fps
    return frame_s, audio_s if math.isnan(audio_s) else max(audio_s + frame_s - video_s, 0.0)


def frame_times(start_s: float, frames: int, fps: float, end_s: float) -> list[float]:
    """The times of the frames that exist of `frames` wanted ones: frame k is the one shown at start + k / fps.

    At least one. Where these are fewer than `frames`, the clip repeats them from its start.
    """
    exist = min(frames, max(1, math.ceil((end_s - start_s) * fps - _ROUNDING)))
    return [start_s + k / fps for k in range(exist)]
