"""From a decoded frame to the pixels that are asked for: colour, size, turn, written into a given array.

Colour. The stream's own matrix (BT.601, BT.709, BT.2020, …) and range are honoured on the way to RGB; a stream that
names no matrix is taken as BT.601, as FFmpeg does. yuv420p output is always BT.601 limited range, so that one
conversion on the device fits every file. Size. Bilinear filtering over the whole source area (never FFmpeg's "fast
bilinear", which aliases). Pixels count as square. Turn. The display matrix is applied: quarter turns and mirrors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from avssl.errors import MediaError, UsageError
from avssl.media.types import Pixels

_BT601 = (5, 6)  # AVCOL_SPC_BT470BG, AVCOL_SPC_SMPTE170M: one matrix
_UNSPECIFIED = 2
_KNOWN_MATRICES = frozenset((1, 4, 5, 6, 7, 9))  # those swscale has; RGB (0) is none for YUV planes


def turn_of(frame: Any) -> tuple[int, bool]:
    """(counter-clockwise quarter turns, whether mirrored left to right before turning) of the display matrix."""
    for side in frame.side_data:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
            mirrored = a * d - b * c < 0
            if mirrored:
                a, b = -a, -b
            if abs(a) >= abs(b):
                return (0 if a >= 0 else 2), mirrored
            return (3 if b > 0 else 1), mirrored
    return 0, False


def target_size(
    shown_px: tuple[int, int], *, short_side_px: int | None, size_px: tuple[int, int] | None, pixels: Pixels
) -> tuple[int, int]:
    """(height, width) to produce from a picture that is shown at (height, width) `shown_px`.

    `short_side_px` keeps the shape, with the long side rounded to the nearest even number.
    """
    height, width = shown_px
    if size_px is not None and short_side_px is not None:
        raise UsageError("give short_side_px or size_px, not both")
    if size_px is not None:
        height, width = size_px
    elif short_side_px is not None:
        long_px = max(2, 2 * round(max(shown_px) * short_side_px / (2 * min(shown_px))))
        height, width = (short_side_px, long_px) if height <= width else (long_px, short_side_px)
    elif pixels == "yuv420p":
        height, width = max(2, height - height % 2), max(2, width - width % 2)
    if height < 1 or width < 1 or (pixels == "yuv420p" and (height % 2 or width % 2)):
        raise UsageError(f"cannot make {pixels} pictures of {width}x{height} pixels")
    return height, width


class Painter:
    """Writes frames of one stream into arrays of one size. Keep one for many frames: it holds swscale's tables."""

    def __init__(self, pixels: Pixels, *, short_side_px: int | None, size_px: tuple[int, int] | None):
        if pixels not in ("rgb24", "yuv420p"):
            raise UsageError(f"pixels must be rgb24 or yuv420p, not {pixels}")
        self._pixels, self._wish = pixels, {"short_side_px": short_side_px, "size_px": size_px}
        self._reformatter = VideoReformatter()
        self._size_px: tuple[int, int] | None = None
        self._turn = (0, False)

    def shape(self, frame: Any) -> tuple[int, ...]:
        """Shape of one picture. The first frame decides on it, and on the turn of all."""
        if self._size_px is None:
            self._turn = turn_of(frame)
            shown = (frame.width, frame.height) if self._turn[0] % 2 else (frame.height, frame.width)
            self._size_px = target_size(shown, pixels=self._pixels, **self._wish)  # type: ignore[arg-type]
        height, width = self._size_px
        return (height, width, 3) if self._pixels == "rgb24" else (height * 3 // 2, width)

    def paint(self, frame: Any, out: np.ndarray, name: str) -> None:
        """Write `frame` into `out` of `shape(frame)`."""
        assert self._size_px is not None
        height, width = self._size_px
        quarter_turns, mirrored = self._turn
        if quarter_turns % 2:
            height, width = width, height
        try:
            frame = self._convert(frame, height, width)
        except (ValueError, OSError) as error:  # pixel format or tags that swscale does not know
            raise MediaError(
                name, "corrupt", f"its {frame.format.name} pictures cannot be converted ({error})"
            ) from None
        if self._pixels == "rgb24":
            _turn(_plane(frame.planes[0], height, width * 3).reshape(height, width, 3), quarter_turns, mirrored, out)
            return
        flat, start = out.reshape(-1), 0  # a chroma plane need not fill whole rows of `out`
        for plane, shrink in zip(frame.planes, (1, 2, 2), strict=True):
            samples = _plane(plane, height // shrink, width // shrink)
            target = flat[start : start + samples.size]
            turned = (width // shrink, height // shrink) if quarter_turns % 2 else samples.shape
            _turn(samples, quarter_turns, mirrored, target.reshape(turned))
            start += samples.size

    def _convert(self, frame: Any, height: int, width: int) -> Any:
        source = frame.colorspace
        source_matrix = source if source in _KNOWN_MATRICES or frame.format.is_rgb else Colorspace.ITU601
        if self._pixels == "rgb24":
            return self._reformatter.reformat(
                frame,
                width,
                height,
                "rgb24",
                src_colorspace=source_matrix,
                interpolation=Interpolation.BILINEAR,
                threads=1,
            )
        if (
            (frame.format.name, frame.height, frame.width) == ("yuv420p", height, width)
            and (source in _BT601 or source == _UNSPECIFIED)
            and frame.color_range != ColorRange.JPEG
        ):
            return frame  # the planes as they are
        return self._reformatter.reformat(
            frame, width, height, "yuv420p", src_colorspace=source_matrix, dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG, interpolation=Interpolation.BILINEAR, threads=1,
        )  # fmt: skip


def _plane(plane: Any, rows: int, row_bytes: int) -> np.ndarray:
    """View of a plane without its padding; lines may be stored bottom up."""
    return np.frombuffer(plane, np.uint8, rows * plane.line_size).reshape(rows, plane.line_size)[:, :row_bytes]


def _turn(picture: np.ndarray, quarter_turns: int, mirrored: bool, out: np.ndarray) -> None:
    if mirrored:
        picture = picture[:, ::-1]
    out[...] = np.rot90(picture, quarter_turns) if quarter_turns else picture
