"""From samples of different picture sizes to one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Batch = dict[str, Any]
"""A flat dict of tensors, batch first."""

_TYPES = {"row": np.int64, "epoch": np.int64, "time_s": np.float32, "video_size_px": np.int32}


@dataclass
class Sample:
    """One decoded sample. `video`: K arrays [T, H, W, 3], or [T, H*3/2, W] as stacked planes; `audio` [K, C, S]."""

    row: int
    epoch: int
    starts_s: list[tuple[float, float]]  # K starts of video and audio, nan where not wanted
    video: list[np.ndarray] | None = None
    video_size_px: tuple[int, int] = (0, 0)  # height, width
    audio: np.ndarray | None = None
    has_audio: bool = False
    augmentation: dict[str, np.ndarray] = field(default_factory=dict)


class Collator:
    """Makes the batch of at most `capacity` samples, each copied in while it is fresh in the processor's cache.

    Frames are put in the top left corner of the largest height and width of the batch; the rest is zeros, which
    `video_size_px` tells from the picture.
    """

    def __init__(self, capacity: int):
        self._capacity, self._count = capacity, 0
        self._large: dict[str, np.ndarray] = {}
        self._small: dict[str, list[Any]] = {}
        self._size_px = (0, 0)

    def add(self, sample: Sample) -> None:
        small = {"row": sample.row, "epoch": sample.epoch, "time_s": sample.starts_s, **sample.augmentation}
        if sample.video is not None:
            self._put_video(sample.video, sample.video_size_px)
            small["video_size_px"] = sample.video_size_px
        if sample.audio is not None:
            if "audio" not in self._large:
                self._large["audio"] = np.empty((self._capacity, *sample.audio.shape), np.float32)
            self._large["audio"][self._count] = sample.audio
            small["audio_mask"] = sample.has_audio
        for name, value in small.items():
            self._small.setdefault(name, []).append(value)
        self._count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The entries of the batch; empty without samples."""
        arrays = {name: np.array(values, _TYPES.get(name)) for name, values in self._small.items()}
        return arrays | {name: array[: self._count] for name, array in self._large.items() if self._count}

    def _put_video(self, clips: list[np.ndarray], size_px: tuple[int, int]) -> None:
        height, width = (max(sides) for sides in zip(size_px, self._size_px, strict=True))
        if (height, width) != self._size_px:
            picture = (height, width, 3) if clips[0].ndim == 4 else (height * 3 // 2, width)
            larger = np.empty((self._capacity, len(clips), len(clips[0]), *picture), np.uint8)
            for n in range(self._count):
                for clip, into in zip(self._large["video"][n], larger[n], strict=True):
                    _place(clip, into)
            self._large["video"], self._size_px = larger, (height, width)
        for clip, into in zip(clips, self._large["video"][self._count], strict=True):
            _place(clip, into)


def _place(clip: np.ndarray, into: np.ndarray) -> None:
    """Copy the frames of a clip to the top left of frames at least as large, and zeros beside them."""
    if clip.shape == into.shape:
        into[...] = clip
        return
    pairs = [(clip, into)] if clip.ndim == 4 else zip(split_planes(clip), split_planes(into), strict=True)
    for picture, canvas in pairs:
        height, width = picture.shape[1:3]
        canvas[:, :height, :width] = picture
        canvas[:, height:] = 0
        canvas[:, :height, width:] = 0


def split_planes(frames: Any) -> tuple[Any, Any, Any]:
    """Views of the Y [..., H, W], U and V [..., H/2, W/2] planes of stacked yuv420p frames [..., H*3/2, W].

    Takes contiguous numpy arrays and torch tensors alike.
    """
    *lead, rows, width = frames.shape
    height = rows * 2 // 3
    flat = frames.reshape(*lead, rows * width)
    sizes = (height, width), (height // 2, width // 2), (height // 2, width // 2)
    planes, start = [], 0
    for plane_height, plane_width in sizes:
        stop = start + plane_height * plane_width
        planes.append(flat[..., start:stop].reshape(*lead, plane_height, plane_width))
        start = stop
    return planes[0], planes[1], planes[2]
