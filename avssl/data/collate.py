"""From samples of different picture sizes to one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Batch = dict[str, Any]
"""A flat dict of tensors, batch first."""


@dataclass
class Sample:
    """One decoded sample. `video`: K arrays [T, H, W, 3], or [T, H*3/2, W] as stacked planes; `audio` [K, C, S]."""

    row: int
    epoch: int
    time_s: np.ndarray  # [K, 2] starts of video and audio, nan where not wanted
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
        self._arrays: dict[str, np.ndarray] = {}
        self._size_px = (0, 0)

    def add(self, sample: Sample) -> None:
        self._put("row", np.array(sample.row, np.int64))
        self._put("epoch", np.array(sample.epoch, np.int64))
        self._put("time_s", sample.time_s.astype(np.float32))
        if sample.video is not None:
            self._put_video(sample.video, sample.video_size_px)
            self._put("video_size_px", np.array(sample.video_size_px, np.int32))
        if sample.audio is not None:
            self._put("audio", sample.audio)
            self._put("audio_mask", np.array(sample.has_audio))
        for name, value in sample.augmentation.items():
            self._put(name, value)
        self._count += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """The entries of the batch; empty without samples."""
        return {name: array[: self._count] for name, array in self._arrays.items()}

    def _put(self, name: str, value: np.ndarray) -> None:
        if name not in self._arrays:
            self._arrays[name] = np.empty((self._capacity, *value.shape), value.dtype)
        self._arrays[name][self._count] = value

    def _put_video(self, clips: list[np.ndarray], size_px: tuple[int, int]) -> None:
        height, width = (max(sides) for sides in zip(size_px, self._size_px, strict=True))
        if (height, width) != self._size_px:
            picture = (height, width, 3) if clips[0].ndim == 4 else (height * 3 // 2, width)
            larger = np.empty((self._capacity, len(clips), len(clips[0]), *picture), np.uint8)
            for n in range(self._count):
                for clip, into in zip(self._arrays["video"][n], larger[n], strict=True):
                    _place(clip, into)
            self._arrays["video"], self._size_px = larger, (height, width)
        for clip, into in zip(clips, self._arrays["video"][self._count], strict=True):
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
