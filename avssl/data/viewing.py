"""From a batch of 360° clips to what is seen and heard from its viewpoints, on the batch's device.

K viewpoints of C clips become C K clips: all views of the first clip come first.
"""

from __future__ import annotations

from torch import Tensor

from avssl.data.collate import Batch
from avssl.spatial.ambisonics import rotate
from avssl.spatial.config import ViewConfig
from avssl.spatial.hear import Hearing, hear
from avssl.spatial.views import see


def see_views(batch: Batch, size_px: int, config: ViewConfig) -> Tensor:
    """`video` [B, C, T, ...] from `view_deg` [B, K, 5], `view_flip` [B, K]: uint8 [B, C K, T, h, w, 3], or planes."""
    video = batch["video"]
    views, flips, sizes = (
        batch[name].repeat_interleave(video.shape[1], 0) for name in ("view_deg", "view_flip", "video_size_px")
    )
    seen = see(
        video.flatten(0, 1),
        views,
        (size_px, size_px),
        flips=flips,
        source_px=sizes,
        projection=config.switches.projection,
    )
    return seen.unflatten(0, video.shape[:2]).flatten(1, 2)


def hear_views(batch: Batch, config: ViewConfig, hearing: Hearing) -> Tensor:
    """`audio` [B, C, 4, S] (ambiX), turned by `turn` [B, 3, 3] if that is there, from `view_deg`: [B, C K, C', S]."""
    audio = batch["audio"]
    if "turn" in batch:
        audio = rotate(audio, batch["turn"][:, None])
    views, flips = (batch[name].repeat_interleave(audio.shape[1], 0) for name in ("view_deg", "view_flip"))
    heard = hear(
        audio.flatten(0, 1),
        views,
        flips=None if config.switches.flip == "released" else flips,
        rotation=config.switches.rotation,
        hearing=hearing,
    )
    return heard.unflatten(0, audio.shape[:2]).flatten(1, 2)
