"""What is searched for: vectors of a clip, of a moment of it, of a still picture or of a sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from avssl.embedding.sources import Item
from avssl.embedding.stream import StreamOptions, crop_long_side, cut_clips, embed_item
from avssl.embedding.windows import ClipGrid, Window
from avssl.errors import UsageError
from avssl.media import open_media
from avssl.media.still import EXTENSIONS, read_still
from avssl.media.types import Channels

if TYPE_CHECKING:
    from avssl.models.av_model import AVModel
    from avssl.sandbox.decoder import Decoder

By = Literal["video", "audio"]
WORDS = {"video": "picture", "audio": "sound"}
_COUNTS: dict[int, Channels] = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class Query:
    """Vectors [Q, D] of unit length of the windows from `start_s` [Q] to `end_s` [Q] of a file (0 of a still one)."""

    path: Path
    by: By
    still: bool
    start_s: np.ndarray
    end_s: np.ndarray
    vectors: np.ndarray


def read_query(
    model: AVModel,
    path: Path,
    by: Literal["video", "audio", "auto"],
    options: StreamOptions,
    at_s: float | None = None,
    decoder: Decoder | None = None,
) -> Query:
    """The query that a file is: all its windows, or the one that begins at `at_s`.

    by: what of it counts; `auto` is its picture, or its sound where there is none. options: windows of the index.
    decoder: decodes in its own confined process. Raises UsageError if the file lacks what is asked for, MediaError if
    it cannot be read.
    """
    if path.suffix[1:].lower() in EXTENSIONS:
        return _still(model, path, by, at_s)
    with opened(path, decoder) as media:
        has = {"video": media.info.video is not None, "audio": media.info.audio is not None}
        kind: By = by if by != "auto" else ("video" if has["video"] else "audio")
        if not has[kind]:
            other: By = "audio" if kind == "video" else "video"
            raise UsageError(f"{path}: has no {WORDS[kind]} to search by; search by its {WORDS[other]}: --by {other}")
        _need_tower(model, kind, path)
        if at_s is not None:
            return _moment(model, media, path, kind, options.window_s, at_s)
    rows = list(embed_item(model, Item(str(path), path, path), replace(options, modalities=(kind,)), decoder))
    start_s, end_s, vectors = (np.array([row[name] for row in rows]) for name in ("start_s", "end_s", kind))
    return Query(path, kind, False, start_s, end_s, vectors)


def opened(path: Path, decoder: Decoder | None) -> Any:
    """The media file, open here or in the decoder's process."""
    return open_media(path) if decoder is None else decoder.open(path)


def _still(model: AVModel, path: Path, by: str, at_s: float | None) -> Query:
    """A still picture is a clip in which nothing moves."""
    if by == "audio":
        raise UsageError(f"{path}: is a picture and has no sound; leave --by audio away")
    if at_s is not None:
        raise UsageError(f"{path}: is a picture, in which there is no --at; leave it away")
    _need_tower(model, "video", path)
    picture = read_still(path)
    frames = np.broadcast_to(picture, (model.video_input.frames, *picture.shape))
    zero = np.zeros(1)
    return Query(path, "video", True, zero, zero, model.encode_video(frames.copy())[None].cpu().numpy())


def _moment(model: AVModel, media: Any, path: Path, kind: By, window_s: float, at_s: float) -> Query:
    """The window at `at_s`, described by the same clips as a row of avssl-embed, without decoding what is before it."""
    part = media.info.video if kind == "video" else media.info.audio
    end_s = part.start_s + part.duration_s
    if not part.start_s <= at_s < end_s:
        raise UsageError(f"{path}: --at {at_s:g} is not within its {WORDS[kind]}, {part.start_s:g} to {end_s:g} s")
    window = Window(at_s, min(at_s + window_s, end_s))
    if kind == "video":
        expects = model.video_input
        grid = ClipGrid(expects.fps, expects.frames, part.start_s, end_s)

        def chunks(start_s: float) -> Iterator[np.ndarray]:
            found = media.iter_frames(start_s, expects.fps, short_side_px=expects.resize_px, chunk=expects.frames)
            return (crop_long_side(frames.data, expects) for frames in found)

        vectors = model.encode_video(np.stack([_clip(chunks, grid, start) for start in grid.starts(window)]))
    else:
        heard = model.audio_input
        grid = ClipGrid(heard.rate_hz, heard.samples, part.start_s, end_s)
        channels = _COUNTS.get(heard.channels, "all")

        def chunks(start_s: float) -> Iterator[np.ndarray]:
            found = media.iter_audio(start_s, rate_hz=heard.rate_hz, channels=channels, chunk_s=heard.duration_s)
            return (audio.samples.T for audio in found)

        clips = np.stack([_clip(chunks, grid, start) for start in grid.starts(window)])
        vectors = model.encode_audio(np.ascontiguousarray(clips.swapaxes(1, 2)), heard.rate_hz)
    mean = vectors.double().mean(0).cpu().numpy()
    unit = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
    return Query(path, kind, False, np.array([window.start_s]), np.array([window.end_s]), unit[None])


def _clip(chunks: Callable[[float], Iterator[np.ndarray]], grid: ClipGrid, start: int) -> np.ndarray:
    """The clip that begins at the step `start` of the grid."""
    with closing(chunks(grid.start_s + start / grid.rate)) as found:  # type: ignore[type-var]
        return next(clip for _, clip in cut_clips(found, [0], grid.length))


def _need_tower(model: AVModel, kind: By, path: Path) -> None:
    if getattr(model.config, kind) is None:
        other = "audio" if kind == "video" else "video"
        raise UsageError(
            f"{path}: the model has no {kind} tower, so nothing can be searched by a {WORDS[kind]}; try --by {other}"
        )
