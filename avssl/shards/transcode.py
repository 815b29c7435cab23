"""One clip of one source -> the members of one sample. Runs in worker processes; needs nothing but its arguments."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avssl.errors import MediaError
from avssl.media.regular import HandedFile, open_regular
from avssl.shards.format import SAMPLE_FIELDS, milliseconds, sample_id
from avssl.shards.options import BuildOptions
from avssl.shards.sources import Entry
from avssl.shards.spatial import ambisonics_of, check_projection, projection_of, to_ambix

if TYPE_CHECKING:
    from avssl.media import Media, MediaInfo

COPY_MAX_BYTES = 1024**3  # a sample is read whole into memory when training


@dataclass(frozen=True)
class Clip:
    """A sample ready to be written: its members by extension, and its fields (see SAMPLE_FIELDS)."""

    members: dict[str, bytes]
    sample: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """Why a source, or one clip of it, is not packed."""

    reason: str
    detail: str
    start_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of clip `number` of an entry, and how many clips the entry has (1 if that cannot be known)."""

    clips: int
    result: Clip | Rejected


def open_source(entry: Entry) -> HandedFile | Rejected:
    """The file of an entry, opened; the caller closes its descriptor."""
    if not Path(entry.path).is_file():
        return Rejected("missing", "no such file", entry.start_s)
    try:
        return HandedFile(open_regular(entry.path, entry.path), entry.path)
    except MediaError as error:
        return Rejected(error.reason, error.detail, entry.start_s)
    except OSError as error:
        return Rejected("unreadable", error.strerror or str(error), entry.start_s)


def pack_clip(
    entry: Entry, number: int, options: BuildOptions, timeout_s: float, file: HandedFile | None = None
) -> Outcome:
    """Make clip `number` of `entry` (from `file`, where that is open already).

    Whatever is wrong with the file becomes a `Rejected`, never an exception.
    """
    clips, start_s = 1, entry.start_s
    if file is None:
        opened = open_source(entry)
        if isinstance(opened, Rejected):
            return Outcome(1, opened)
        try:
            return pack_clip(entry, number, options, timeout_s, opened)
        finally:
            os.close(opened.descriptor)
    try:
        from avssl.media import Limits, open_media

        with open_media(file, limits=Limits(timeout_s=timeout_s)) as media:
            ranges = plan_clips(entry, media.info, options)
            clips = len(ranges)
            start_ms, end_ms = ranges[number]
            start_s = start_ms / 1000
            if options.copy:
                members, video, audio = _copy(media, file, entry, options)
            else:
                members, video, audio = _transcode(media, entry, start_s, end_ms / 1000, options)
        _check_required(video, audio, options)
        return Outcome(clips, Clip(members, sample_of(entry, start_ms, end_ms, video, audio)))
    except MediaError as error:
        return Outcome(clips, Rejected(error.reason, error.detail, start_s))
    except OSError as error:
        return Outcome(clips, Rejected("unreadable", error.strerror or str(error), start_s))
    except MemoryError:
        return Outcome(clips, Rejected("too-large", "needs more memory than there is", start_s))
    except Exception as error:  # one odd file among millions must not stop a build; the reason shows where to look
        return Outcome(clips, Rejected("unexpected", f"{type(error).__name__}: {error}", start_s))


def sample_of(entry: Entry, start_ms: int, end_ms: int, video: Any, audio: Any) -> dict[str, Any]:
    """The fields of a sample, in their order."""
    return dict.fromkeys(SAMPLE_FIELDS) | {
        "id": sample_id(entry.source, start_ms, end_ms), "source": entry.source, "start_s": start_ms / 1000,
        "end_s": end_ms / 1000, "label": entry.label, "meta": entry.meta, "video": video, "audio": audio,
    }  # fmt: skip


def plan_clips(entry: Entry, info: MediaInfo, options: BuildOptions) -> list[tuple[int, int]]:
    """The (start, end) of each clip in whole milliseconds of media time.

    The wanted range, ended by the file, is cut every `clip_s` from its beginning. The rest is a clip of its own unless
    it is shorter than `min_clip_s`. Raises MediaError `out-of-range` or `too-short` if nothing remains.
    """
    start_ms = milliseconds(entry.start_s or 0.0)
    end_ms = milliseconds(info.duration_s)
    if start_ms >= end_ms:
        raise MediaError(entry.source, "out-of-range", f"starts at {start_ms / 1000} s of {end_ms / 1000} s")
    if entry.end_s is not None:
        end_ms = min(end_ms, milliseconds(entry.end_s))
    if options.copy:
        return [(start_ms, end_ms)]
    step_ms, shortest_ms = milliseconds(options.clip_s), max(1, milliseconds(options.min_clip_s))
    starts = range(start_ms, end_ms, step_ms)
    clips = [(start, min(start + step_ms, end_ms)) for start in starts]
    clips = [(start, end) for start, end in clips if end - start >= shortest_ms]
    if not clips:
        raise MediaError(
            entry.source,
            "too-short",
            f"lasts {(end_ms - start_ms) / 1000} s, less than --min-clip-s {options.min_clip_s}",
        )
    return clips


def _check_required(video: Any, audio: Any, options: BuildOptions) -> None:
    if video is None and audio is None:
        raise MediaError("", "empty", "has neither picture nor sound here")
    if video is None and options.require in ("both", "video"):
        raise MediaError("", "no-video", f"has no picture here, and --require {options.require} asks for it")
    if audio is None and options.require in ("both", "audio"):
        raise MediaError("", "no-audio", f"has no sound here, and --require {options.require} asks for it")


def _copy(media: Media, file: HandedFile, entry: Entry, options: BuildOptions) -> tuple:
    """The whole file as it is, under its own extension."""
    if {entry.ambisonics or "none", entry.projection or "none"} != {"none"}:
        raise MediaError(entry.source, "copy", "--copy keeps files as they are; pack 360° video without --copy")
    if entry.start_s is not None or entry.end_s is not None:
        raise MediaError(entry.source, "range", "--copy keeps whole files; pack a range without --copy")
    info = media.info
    if info.size_bytes > COPY_MAX_BYTES:
        raise MediaError(
            entry.source, "too-large", f"has {info.size_bytes} bytes; --copy takes {COPY_MAX_BYTES} at most"
        )
    extension = Path(entry.path).suffix[1:].lower()
    video = audio = None
    if info.video is not None:
        video = {
            "width_px": info.video.width_px, "height_px": info.video.height_px, "fps": info.video.fps,
            "frames": None, "duration_s": info.video.duration_s,
        }  # fmt: skip
    if info.audio is not None:
        audio = {"rate_hz": info.audio.rate_hz, "channels": info.audio.channels, "samples": None}
    return {extension: file.reader().readall()}, video, audio


def _transcode(media: Media, entry: Entry, start_s: float, end_s: float, options: BuildOptions) -> tuple:
    """Each stream that fills enough of the clip as its own member."""
    from avssl.media import encode_flac

    members: dict[str, bytes] = {}
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    shortest_s = min(options.min_clip_s, (end_s - start_s) / 2)  # a shorter part of a stream counts as none
    projection = entry.projection or options.projection
    if (info := media.info.video) is not None:
        if projection != "none":
            projection = projection_of(projection, media.spatial, entry.source)
            check_projection(info, entry.source)
        end = _end_of_part(start_s, end_s, info.start_s, info.duration_s, shortest_s)
        data, frames = _encode_video(media, start_s, end, options) if end is not None else (b"", 0)
        if frames and frames / options.fps >= shortest_s:  # headers may promise more than there is
            height_px, width_px = stored_size(info.width_px, info.height_px, options.short_side_px)
            members["mp4"] = data
            video = {
                "width_px": width_px, "height_px": height_px, "fps": options.fps, "frames": frames,
                "duration_s": frames / options.fps,
            }  # fmt: skip
            if projection != "none":
                video["projection"] = projection
    if (sound := media.info.audio) is not None:
        end = _end_of_part(start_s, end_s, sound.start_s, sound.duration_s, shortest_s)
        samples: np.ndarray = np.empty((1, 0))
        spatial: dict[str, Any] = {}
        if end is not None:
            samples, spatial = _read_audio(media, start_s, end, entry, options)
        channels, count = samples.shape
        if count and count / options.audio_rate_hz >= shortest_s:
            members["flac"] = encode_flac(samples, options.audio_rate_hz)
            audio = {"rate_hz": options.audio_rate_hz, "channels": channels, "samples": count, **spatial}
    return members, video, audio


def _end_of_part(
    start_s: float, end_s: float, stream_start_s: float, stream_duration_s: float, shortest_s: float
) -> float | None:
    """Where a stream's part of a clip ends by its header; None if the part is too short."""
    end = min(end_s, stream_start_s + stream_duration_s)
    return end if end - max(start_s, stream_start_s) >= max(1e-3, shortest_s) else None


def stored_size(width_px: int, height_px: int, short_side_px: int) -> tuple[int, int]:
    """(height, width) of the stored picture: the aspect kept, never enlarged, both sides even and at least 2."""
    scale = short_side_px / min(width_px, height_px)
    if scale >= 1:  # loses at most one row and one column
        return max(2, height_px - height_px % 2), max(2, width_px - width_px % 2)
    return 2 * round(height_px * scale / 2), 2 * round(width_px * scale / 2)


def _encode_video(media: Media, start_s: float, end_s: float, options: BuildOptions) -> tuple[bytes, int]:
    """The pictures from `start_s` to `end_s`, or to their end if that is earlier, as MP4; and how many they are."""
    from avssl.media import fastdecode_options, write_video

    info = media.info.video
    assert info is not None
    size_px = stored_size(info.width_px, info.height_px, options.short_side_px)
    wanted = max(1, math.ceil((end_s - start_s) * options.fps - 1e-6))  # picture k is shown at k / fps, before the end
    pictures = itertools.islice(_pictures(media, start_s, options.fps, size_px), wanted)
    first = next(pictures, None)
    if first is None:
        return b"", 0
    file = io.BytesIO()
    frames = write_video(
        file, itertools.chain([first], pictures), options.fps, container="mp4",
        video_options=fastdecode_options(options.gop, options.crf),
    )  # fmt: skip
    return file.getvalue(), frames


def _pictures(media: Media, start_s: float, fps: float, size_px: tuple[int, int]) -> Iterator[np.ndarray]:
    # Small parts: the caller stops at the end of the clip, and what was decoded beyond it is lost.
    for part in media.iter_frames(start_s, fps, size_px=size_px, pixels="yuv420p", chunk=8):
        yield from part.data


def _read_audio(
    media: Media, start_s: float, end_s: float, entry: Entry, options: BuildOptions
) -> tuple[np.ndarray, dict[str, Any]]:
    """The sound [C, S] from `start_s` to `end_s`, or to its end if that is earlier, and its spatial fields."""
    said = entry.ambisonics or options.ambisonics
    info = media.info.audio
    assert info is not None
    layout = "none" if said == "none" else ambisonics_of(said, media.spatial, info, entry.source)
    channels = options.audio_channels if layout == "none" else "all"
    sound = media.audio_between(start_s, end_s - start_s, rate_hz=options.audio_rate_hz, channels=channels)
    samples = sound.samples[:, : sound.valid[1]]
    if layout == "none":
        return samples, {}
    samples, gain = to_ambix(samples, layout, entry.source)
    return samples, {"ambisonics": "ambix", "source_ambisonics": said, "gain": gain}
