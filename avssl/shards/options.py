"""The options of a build, all written to index.json (a folder is only continued with the same), and of the cache."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from avssl.errors import ConfigError, UsageError
from avssl.shards.spatial import AMBISONICS, DECLARED, PROJECTIONS


@dataclass(frozen=True)
class BuildOptions:
    """How sources become samples and samples become shards. A megabyte is 1e6 bytes."""

    clip_s: float = 10.0  # longer sources are cut every clip_s
    min_clip_s: float = 1.0  # a shorter tail is dropped; so is a stream's part of a clip, unless it is half of it
    require: Literal["any", "both", "video", "audio"] = "any"  # what a clip must have, else it is rejected
    copy: bool = False  # keep the original file as the one member, uncut and not decoded
    short_side_px: int = 128  # of the stored picture; smaller sources are not enlarged
    fps: float = 16.0
    gop: int = 8  # frames from one key frame to the next
    crf: int = 20  # x264 quality, 0 to 51, smaller is better and larger
    audio_rate_hz: int = 24000
    audio_channels: Literal["mono", "stereo", "all"] = "mono"
    ambisonics: Literal["none", "ambix", "n3d", "fuma", "youtube", "declared"] = "none"  # what sound is, for rows that
    # do not say; declared: what the file says about itself
    projection: Literal["none", "equirectangular", "declared"] = "none"  # likewise, of the picture
    shard_mb: float = 256.0  # a shard is closed when it has reached this size …
    shard_clips: int | None = None  # … or this number of clips
    name: str = "shard"

    def __post_init__(self) -> None:
        for field, low, high in (
            ("clip_s", 0.1, 3600.0),
            ("min_clip_s", 0.0, self.clip_s),
            ("short_side_px", 16, 4096),
            ("fps", 0.1, 240.0),
            ("gop", 1, 1000),
            ("crf", 0, 51),
            ("audio_rate_hz", 1000, 192000),
            ("shard_mb", 0.001, 1e6),
        ):
            value = getattr(self, field)
            if not (math.isfinite(value) and low <= value <= high):
                raise UsageError(f"{field} is {value}; it must lie between {low} and {high}")
        if self.short_side_px % 2:
            raise UsageError(f"short_side_px is {self.short_side_px}; it must be even, as 4:2:0 video is")
        if self.shard_clips is not None and self.shard_clips < 1:
            raise UsageError(f"shard_clips is {self.shard_clips}; it must be at least 1")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", self.name):
            raise UsageError(f"name is {self.name!r}; use 1 to 64 letters, digits, - and _")
        for field, values in (
            ("require", ("any", "both", "video", "audio")),
            ("audio_channels", ("mono", "stereo", "all")),
            ("ambisonics", ("none", *AMBISONICS, DECLARED)),
            ("projection", ("none", *PROJECTIONS, DECLARED)),
        ):
            if getattr(self, field) not in values:
                raise UsageError(f"{field} is {getattr(self, field)!r}; choose one of {', '.join(values)}")

        if self.copy and self.is_spatial:
            raise UsageError("copy keeps files as they are; leave it out to pack 360° video (ambisonics, projection)")

    @property
    def is_spatial(self) -> bool:
        return self.ambisonics != "none" or self.projection != "none"

    def to_dict(self) -> dict[str, Any]:
        """All options; those of 360° video only where one is given, so that other builds are what they were."""
        plain = dataclasses.asdict(self)
        return plain if self.is_spatial else {k: v for k, v in plain.items() if k not in ("ambisonics", "projection")}


@dataclass
class CacheConfig:
    """Where and how remote shard folders (http://, https://, s3://, …) are kept on the local disk."""

    dir: str | None = None
    """Folder of the cache, on a local disk; any number of processes may share it. null: avssl/shards in
    $XDG_CACHE_HOME or ~/.cache."""
    size_gb: float = 100.0
    """It never takes more; what was not used for the longest time goes first, what is in use never."""
    attempts: int = 8
    """Attempts in a row that may bring nothing new before the run stops; each asks the next address, where a folder
    has several, and begins after the last byte that came."""
    pause_s: float = 0.5
    """Pause after the first of them, doubled after each further one up to a minute."""
    timeout_s: float = 30.0
    """How long a server may stay silent."""

    def __post_init__(self) -> None:
        for name in ("size_gb", "attempts", "pause_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"data.cache.{name} is {getattr(self, name)}, but must be positive")


def describe_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """E.g. "fps was 16.0 and is 8.0"; empty if both are equal."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys)
