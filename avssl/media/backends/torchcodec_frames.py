"""torchcodec as a frame backend. It needs FFmpeg's shared libraries on the machine; the best video stream is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from torchcodec.decoders import VideoDecoder


class Backend:
    """See `FrameBackend`."""

    def __init__(self, source: Any, stored_px: tuple[int, int]):
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else bytes(source)
        self._decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
        self._reformatter = VideoReformatter()

    def frames_at(self, times_s: Sequence[float], size_px: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        facts = self._decoder.metadata
        low, high = facts.begin_stream_seconds or 0.0, np.nextafter(facts.end_stream_seconds or 0.0, -np.inf)
        batch = self._decoder.get_frames_played_at(np.clip(np.asarray(times_s) + 5e-4, low, high).tolist())
        pictures = batch.data.numpy()
        if pictures.shape[1:3] != size_px:
            pictures = np.stack([self._scaled(picture, size_px) for picture in pictures])
        return pictures, batch.pts_seconds.numpy().astype(np.float64)

    def _scaled(self, picture: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        # torchcodec's own resizing needs torchvision's operators, which a CPU build of torch may lack.
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        height, width = size_px
        scaled = self._reformatter.reformat(frame, width, height, interpolation=Interpolation.BILINEAR, threads=1)
        return scaled.to_ndarray()
