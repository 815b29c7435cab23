"""Which clips to learn from, and which to hold out for measuring."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from avssl.errors import MediaError, UsageError

MANY_VIDEOS = 60  # from here on whole videos are held out, below the end of each
HELD_OUT_VIDEOS = 4  # every fourth video of a class
HELD_OUT_TIME = 1 / 3  # of each video
LONGEST_S = 60.0  # of one video
TOTAL_S = 2400.0  # of all videos together: more does not fit into a demo's minutes
MAX_VIDEOS = 600
SHORTEST_S = 4.0  # a video must leave something to learn from and something to hold out
MIN_CLIPS = 8
SHORTEST_CLIP_S = 1.0  # `avssl-shards build` drops a shorter rest


@dataclass(frozen=True)
class Video:
    """A video with picture and sound, or the part of one that a list names."""

    path: str  # as `avssl-shards` will name it
    label: str | None
    start_s: float
    end_s: float

    def row(self, start_s: float, end_s: float) -> dict[str, Any]:
        """A line for `avssl-shards build`."""
        return {"path": self.path, "start_s": round(start_s, 3), "end_s": round(end_s, 3), "label": self.label}


@dataclass(frozen=True)
class Split:
    """Lines for `avssl-shards build`, and in words what was held out."""

    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    rule: str


def find_videos(src: str | os.PathLike[str], say: Callable[[str], None]) -> list[Video]:
    """The videos of a folder, CSV or JSONL list that have picture and sound; what is left out is said.

    Raises UsageError if there are none.
    """
    from avssl.media import probe
    from avssl.shards.sources import list_sources

    entries = list_sources(src).entries
    if not entries:
        raise UsageError(f"{src}: holds no videos; give a folder with .mp4, .mkv, .avi, .mov or .webm files")
    if len(entries) > MAX_VIDEOS:
        say(f"{len(entries)} files: taking {MAX_VIDEOS} of them, evenly spaced")
        entries = [entries[number * len(entries) // MAX_VIDEOS] for number in range(MAX_VIDEOS)]
    videos: list[Video] = []
    left_out: Counter[str] = Counter()
    for entry in entries:
        try:
            info = probe(entry.path)
        except (MediaError, OSError) as error:
            left_out["unreadable"] += 1
            say(f"left out: {error}")
            continue
        if info.video is None or info.audio is None:
            left_out["without sound" if info.audio is None else "without picture"] += 1
            continue
        start_s = max(entry.start_s or 0.0, info.video.start_s, info.audio.start_s)
        ends_s = [info.video.start_s + info.video.duration_s, info.audio.start_s + info.audio.duration_s]
        end_s = min(*ends_s, entry.end_s or info.duration_s)
        if end_s - start_s < SHORTEST_S:
            left_out[f"shorter than {SHORTEST_S:g} s"] += 1
            continue
        videos.append(Video(entry.source, entry.label, start_s, end_s))
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    if not videos:
        raise UsageError(
            f"{src}: none of the {len(entries)} files can be used ({reasons}); this demo learns which sound belongs to "
            f"which picture, so give videos of at least {SHORTEST_S:g} s that have both"
        )
    say(f"{len(videos)} videos with picture and sound" + (f"; left out: {reasons}" if reasons else ""))
    return videos


def split(videos: list[Video], clip_s: float) -> Split:
    """Hold out whole videos if there are many, else the end of each.

    Of long videos, and of many, only the beginnings are taken. Raises UsageError if too little is left.
    """
    longest_s = min(LONGEST_S, max(2 * clip_s, TOTAL_S / len(videos)))
    videos = [Video(v.path, v.label, v.start_s, min(v.end_s, v.start_s + longest_s)) for v in videos]
    by_video = _split_by_video if len(videos) >= MANY_VIDEOS else _split_by_time
    result = by_video(videos)
    for rows in (result.train, result.held_out):
        clips = sum(_clips(row["end_s"] - row["start_s"], clip_s) for row in rows)
        if clips < MIN_CLIPS:
            total_s = sum(video.end_s - video.start_s for video in videos)
            raise UsageError(
                f"the videos last {total_s:.0f} s together, too little to learn from and to measure on; give at least "
                f"{MIN_CLIPS * clip_s / HELD_OUT_TIME:.0f} s of video with sound"
            )
    return result


def _clips(duration_s: float, clip_s: float) -> int:
    """How many clips packing makes of this time."""
    whole, rest_s = divmod(duration_s + 1e-6, clip_s)
    return int(whole) + (rest_s >= SHORTEST_CLIP_S)


def _split_by_video(videos: list[Video]) -> Split:
    seen: Counter[str | None] = Counter()
    train: list[dict[str, Any]] = []
    held_out: list[dict[str, Any]] = []
    for video in videos:
        seen[video.label] += 1
        rows = held_out if seen[video.label] % HELD_OUT_VIDEOS == 0 else train
        rows.append(video.row(video.start_s, video.end_s))
    return Split(train, held_out, f"every {HELD_OUT_VIDEOS}th video of each class was held out whole")


def _split_by_time(videos: list[Video]) -> Split:
    cuts_s = [video.end_s - HELD_OUT_TIME * (video.end_s - video.start_s) for video in videos]
    return Split(
        [video.row(video.start_s, cut_s) for video, cut_s in zip(videos, cuts_s, strict=True)],
        [video.row(cut_s, video.end_s) for video, cut_s in zip(videos, cuts_s, strict=True)],
        "the last third of every video was held out: other moments, but of scenes that were learned from",
    )
