"""Embeddings of 360° video: each window is looked at, and heard, from K level viewpoints around the horizon."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from avssl.embedding.sources import Item
from avssl.embedding.track import EMBEDDING, Track, Vectors, named
from avssl.errors import MediaError, ModelError
from avssl.shards.spatial import ambisonics_of, check_projection, projection_of, to_ambix
from avssl.spatial.config import Switches
from avssl.spatial.hear import BY_CHANNELS, hear
from avssl.spatial.views import see

if TYPE_CHECKING:
    from avssl.media import AudioInfo, Media, VideoInfo
    from avssl.models.av_model import AVModel


@dataclass(frozen=True)
class Viewpoints:
    """Where to look from, and what the sound of files is (see `avssl.shards.spatial`; shards say it themselves)."""

    ambisonics: str
    count: int = 4
    fov_deg: float = 90.0

    @property
    def azimuths_deg(self) -> list[float]:
        """Of each viewpoint, the first ahead, then to the left: from -180 (excluded) to 180."""
        turns = (360.0 * number / self.count for number in range(self.count))
        return [round(turn if turn <= 180 else turn - 360, 6) for turn in turns]

    def views(self, batch: int) -> torch.Tensor:
        """[batch, K, 5] as `avssl.spatial.views` takes them."""
        azimuth = torch.tensor(self.azimuths_deg)
        zero, fov = torch.zeros_like(azimuth), torch.full_like(azimuth, self.fov_deg)
        return torch.stack([azimuth, zero, zero, fov, fov], -1).expand(batch, -1, -1)


def _switches(model: AVModel) -> Switches:
    return model.config.alignment.switches if model.config.alignment else Switches()


def _check_declared(said: str | None, path: str, what: str) -> None:
    if said == "none":
        raise MediaError(path, "undeclared", f"its shards do not say that its {what} is of 360° video; pack it as such")


def video_track(
    model: AVModel, media: Media, info: VideoInfo, item: Item, track: Track, layers: list[str], points: Viewpoints
) -> Track:
    """The flat track of the picture, with clips that are whole spheres and are encoded view by view.

    Raises MediaError if the picture is not one sphere, by its shape or by what it says about itself.
    """
    _check_declared(item.projection, item.path, "picture")
    projection_of("equirectangular", media.spatial, item.path)
    check_projection(info, item.path)
    expects, switches = model.video_input, _switches(model)
    # The model's own crop from the centre cuts the view back to what was asked for.
    wider = expects.resize_px / expects.size_px
    if switches.projection == "released":
        fov_deg = points.fov_deg * wider
    else:
        fov_deg = math.degrees(2 * math.atan(math.tan(math.radians(points.fov_deg) / 2) * wider))
    seen = replace(points, fov_deg=fov_deg)
    # As many pixels a degree as the views have, and not more than there are.
    height_px = min(2 * math.ceil(expects.resize_px * 90 / fov_deg), info.height_px - info.height_px % 2)

    def chunks() -> Iterator[np.ndarray]:
        for frames in media.iter_frames(info.start_s, expects.fps, size_px=(height_px, 2 * height_px), chunk=16):
            yield frames.data

    def encode(clips: np.ndarray) -> Vectors:
        side = (expects.resize_px, expects.resize_px)
        frames = torch.from_numpy(np.ascontiguousarray(clips)).to(model.device)
        pictures = see(frames, seen.views(len(clips)).to(model.device), side, projection=switches.projection)
        return named("video", model.encode_video(pictures, layers=[EMBEDDING, *layers]))

    return replace(track, chunks=chunks, encode=encode)


def audio_track(
    model: AVModel, media: Media, info: AudioInfo, item: Item, track: Track, layers: list[str], points: Viewpoints
) -> Track:
    """The flat track of the sound, with clips of all channels that are heard from each view.

    Raises MediaError if the channels are not what was said, ModelError if the model takes other numbers of channels.
    """
    expects, switches = model.audio_input, _switches(model)
    if expects.channels not in BY_CHANNELS:
        raise ModelError(f"this model takes {expects.channels} sound channels; a view is heard in 4, 2 or 1")
    _check_declared(item.ambisonics, item.path, "sound")
    said = item.ambisonics or points.ambisonics
    layout = ambisonics_of(said, media.spatial, info, item.path)

    def chunks() -> Iterator[np.ndarray]:
        for audio in media.iter_audio(info.start_s, rate_hz=expects.rate_hz, channels="all"):
            yield audio.samples.T

    def encode(clips: np.ndarray) -> Vectors:
        count, length, _ = clips.shape
        scene, gain = to_ambix(clips.reshape(count * length, -1).T, layout, item.path)
        scenes = (scene / gain).reshape(len(scene), count, length).swapaxes(0, 1)  # levels as they were recorded
        heard = hear(
            torch.from_numpy(np.ascontiguousarray(scenes)).to(model.device),
            points.views(count).to(model.device),
            rotation=switches.rotation,
            hearing=BY_CHANNELS[expects.channels],
        )
        return named("audio", model.encode_audio(heard, expects.rate_hz, layers=[EMBEDDING, *layers]))

    return replace(track, chunks=chunks, encode=encode)
