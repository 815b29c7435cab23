"""What `avssl.media` hands out: plain records, times in seconds of media time.

Media time starts at 0 with the earliest picture or sound of the chosen streams; offsets between the two are kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from avssl.media.regular import HandedFile

Source = str | os.PathLike[str] | bytes | memoryview | HandedFile
"""A path, a whole file in memory (such as a tar member), or a file that is open already."""

Pixels = Literal["rgb24", "yuv420p"]
Channels = Literal["mono", "stereo", "all"]


@dataclass(frozen=True)
class VideoInfo:
    """The chosen video stream. Sizes are as displayed: after rotation, pixels taken as square."""

    index: int
    codec: str
    width_px: int
    height_px: int
    fps: float
    """Average; frames need not be evenly spaced."""
    rotation_deg: int
    """Counter-clockwise turn from stored to displayed: 0, 90, 180 or 270 (already applied to what is read)."""
    start_s: float
    duration_s: float
    pixel_format: str
    time_base: Fraction


@dataclass(frozen=True)
class AudioInfo:
    """The chosen audio stream."""

    index: int
    codec: str
    rate_hz: int
    channels: int
    layout: str
    start_s: float
    duration_s: float


@dataclass(frozen=True)
class Ambisonics:
    """What a file's own box says its sound channels are (`SA3D`)."""

    order: int
    ordering: str
    """`acn`, or which other number."""
    normalisation: str
    """`sn3d`, or which other number."""
    channel_map: tuple[int, ...]
    """Of each channel of the track: which component it is."""
    periphonic: bool
    """Whether it has all components of its order (height too)."""
    head_locked_stereo: bool
    """Whether two more channels follow that do not turn with the scene."""


@dataclass(frozen=True)
class SpatialInfo:
    """What a file says about itself as 360° video; None where it says nothing."""

    projection: str | None = None
    """`equirectangular`, `cubemap`, `mesh` or another word."""
    stereo: str | None = None
    """`mono`; `top-bottom` and `left-right` hold two pictures."""
    ambisonics: Ambisonics | None = None


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds. `duration_s` is the end of the longer of the chosen streams, in media time."""

    container: str
    duration_s: float
    size_bytes: int
    video: VideoInfo | None
    audio: AudioInfo | None
    video_streams: int
    audio_streams: int


@dataclass(frozen=True)
class Frames:
    """Pictures: `data` uint8, [T, H, W, 3] (rgb24) or [T, H*3//2, W] (yuv420p: the planes Y, U, V of I420 one
    below the other, BT.601 limited range). `times_s` [T] float64: when each picture began to be shown."""

    data: np.ndarray
    times_s: np.ndarray


@dataclass(frozen=True)
class Audio:
    """Sound: `samples` float32 [C, S]; sample n is at `start_s + n / rate_hz`. Samples `valid[0]:valid[1]` lie
    inside the stream, the others are zeros put in their place."""

    samples: np.ndarray
    rate_hz: int
    start_s: float
    valid: tuple[int, int]
