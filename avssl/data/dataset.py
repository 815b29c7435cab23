"""From stream entries to decoded batches: what runs inside a loader's worker."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from avssl import rng
from avssl.data import augment, clips, parcel
from avssl.data.anchors import AnchorTable
from avssl.data.collate import Batch, Collator, Sample, split_planes
from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.labels import UNLABELLED, Labels
from avssl.data.order import Entry
from avssl.data.parcel import Parcel
from avssl.errors import AvsslError, ConfigError, MediaError
from avssl.media import Media, decode_flac, open_media, packed_frames
from avssl.media.types import Channels, Pixels
from avssl.shards import ShardSet
from avssl.spatial.draw import draw_turn, draw_views

FIRST_ORDER = 4  # channels of ambisonics


class Request(NamedTuple):
    """A sample to make. A reader that streams brings the members' bytes along; otherwise they are read by offset.
    drawn_class: what it was drawn for; None: for itself."""

    entry: Entry
    members: dict[str, bytes] | None = None
    drawn_class: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be used: where it lies and why."""

    row: int
    key: str
    shard: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"row {self.row} ({self.key} in {self.shard}): {self.detail} ({self.reason})"


@dataclass
class Outcome:
    """What a worker makes of a list of requests. `failure` is an error that must stop the run, as a value, because
    an exception that crosses the process border arrives as a page of traceback."""

    batch: Batch | Parcel | None  # a parcel arrives as a batch
    skipped: list[Skipped]
    failure: AvsslError | None = None

    def pin_memory(self) -> Outcome:
        """Called by torch's DataLoader where there is a GPU: page-locked tensors copy to it beside other work."""
        assert not isinstance(self.batch, Parcel)
        batch = self.batch and {name: tensor.pin_memory() for name, tensor in self.batch.items()}
        return Outcome(batch, self.skipped, self.failure)


class ClipDataset(torch.utils.data.Dataset):
    """Decodes requests into batches. Nothing is kept between requests, so any worker may serve any of them."""

    def __init__(
        self,
        shards: ShardSet,
        config: DataConfig,
        labels: Labels | None = None,
        anchors: AnchorTable | None = None,
    ):
        self.shards, self.config, self.labels, self.anchors = shards, config, labels, anchors

    def __getitems__(self, requests: list[Request]) -> Outcome:
        collator, skipped = Collator(len(requests)), []
        for request in requests:
            row = request.entry.row
            try:
                collator.add(self.sample(request))
            except MediaError as error:
                record = self.shards.record(row)
                shard = self.shards.shard_of(row)
                skipped.append(Skipped(row, record["id"], shard, error.reason, error.detail))
            except AvsslError as error:
                return Outcome(None, skipped, error)
        arrays = collator.arrays()
        if not arrays:
            return Outcome(None, skipped)
        if torch.utils.data.get_worker_info() is not None and parcel.can_send():
            return Outcome(Parcel(arrays), skipped)
        return Outcome({name: torch.from_numpy(array) for name, array in arrays.items()}, skipped)

    def sample(self, request: Request) -> Sample:
        """Decode one sample; `MediaError` if its media is unusable, `ShardError` if the shard is."""
        config, entry = self.config, request.entry
        generator = rng.sample_generator(config.seed, *entry)
        members = _Members(self.shards, request)
        try:
            starts = self._starts(generator, members.record)
            sample = Sample(entry.row, entry.epoch, starts)
            if self.labels:
                self._add_labels(sample, self.labels, request.drawn_class, generator)
            if config.video:
                self._add_video(sample, members, config.video, generator)
            if config.audio:
                self._add_audio(sample, members, config.audio, generator)
            if config.views:
                sample.augmentation |= draw_views(generator, config.views)
            if config.turn:
                sample.augmentation |= draw_turn(generator, config.turn)
        finally:
            members.close()
        return sample

    def _starts(self, generator: np.random.Generator, record: dict[str, Any]) -> list[clips.Starts]:
        config, video, audio = self.config, None, None
        if config.video:
            video = clips.Span(record["video"]["duration_s"], config.video.duration_s)
        if config.audio and record["audio"]:
            audio = clips.Span(_sound_end_s(record), config.audio.duration_s)
        if config.sampling == "even":
            starts = clips.even_starts(config.clips, video, audio)
        else:
            starts = clips.random_starts(generator, config.clips, video, audio, config.offset_s)
        fps = record["video"]["fps"] if video else 0.0
        return [clips.snap(start, fps) for start in starts] if fps else starts

    def _add_labels(
        self, sample: Sample, labels: Labels, drawn_class: int | None, generator: np.random.Generator
    ) -> None:
        own = labels.of(sample.row)
        if drawn_class is None:
            drawn_class = own[int(generator.integers(len(own)))] if own else UNLABELLED
        sample.augmentation |= {"target": labels.target(sample.row), "drawn_class": np.array(drawn_class)}
        if self.anchors is not None:
            start_s = self.anchors.start_s(sample.row, drawn_class)
            if start_s is None:
                raise MediaError(self.shards.record(sample.row)["id"], "no-anchor", "no segment was mined of it")
            sample.starts_s = [(math.nan, start_s)]

    def _add_video(self, sample: Sample, members: _Members, spec: VideoSpec, generator: np.random.Generator) -> None:
        end_s = members.record["video"]["duration_s"]
        sphere = members.record["video"].get("projection") == "equirectangular"
        if self.config.views and not sphere:
            raise MediaError(members.record["id"], "projection", "data.views needs pictures declared equirectangular")
        sample.video = []
        for start_s, _ in sample.starts_s:
            times = clips.frame_times(start_s, spec.frames, spec.fps, end_s)
            frames = members.frames(times, spec.short_side_px, self.config.pixels)
            if len(times) < spec.frames:
                frames = frames[np.arange(spec.frames) % len(times)]
            sample.video.append(frames if sphere else _limit_aspect(frames, spec.max_aspect))
        sample.video_size_px = _size_px(sample.video[0])
        if any(clip.shape != sample.video[0].shape for clip in sample.video):
            raise MediaError(members.record["id"], "size", "its pictures change their size")
        if self.config.augment and self.config.views:
            count = self.config.clips * self.config.views.views
            sample.augmentation |= augment.draw_colour(generator, self.config.augment, count)
        elif self.config.augment:
            drawn = augment.draw_video(generator, self.config.augment, self.config.clips, *sample.video_size_px)
            sample.augmentation |= drawn

    def _add_audio(self, sample: Sample, members: _Members, spec: AudioSpec, generator: np.random.Generator) -> None:
        channels = FIRST_ORDER if self.config.views else spec.channels
        sample.audio = np.zeros((self.config.clips, channels, spec.samples), np.float32)
        sample.has_audio = members.record["audio"] is not None
        if sample.has_audio:
            if self.config.views and "ambisonics" not in members.record["audio"]:
                raise MediaError(members.record["id"], "channels", "data.views needs sound declared ambisonic")
            for (_, start_s), window in zip(sample.starts_s, sample.audio, strict=True):
                speed = augment.draw_speed(generator, self.config.augment) if self.config.augment else 1.0
                sound = _heard(members, start_s, spec, channels, speed)
                window[:, : sound.shape[1]] = sound
        if self.config.augment:
            sample.augmentation |= augment.draw_audio(generator, self.config.augment, self.config.clips)


class _Members:
    """The members of one sample, read and opened when first wanted."""

    def __init__(self, shards: ShardSet, request: Request):
        self.record = shards.record(request.entry.row)
        self._shards, self._request = shards, request
        self._bytes: dict[str, bytes] = {} if request.members is None else request.members
        self._media: Media | None = None

    def read(self, extension: str) -> bytes:
        if extension not in self._bytes:
            self._bytes[extension] = self._shards.read(self._request.entry.row, extension)
        return self._bytes[extension]

    def frames(self, times_s: list[float], short_side_px: int | None, pixels: Pixels) -> np.ndarray:
        """Pictures as `Media.frames_at` gives them."""
        if self.record["video"]["frames"] is not None:  # encoded by `avssl.shards`
            data = packed_frames(self.read("mp4"), times_s, short_side_px=short_side_px, pixels=pixels)
            if data is not None:
                return data
        return self.media().frames_at(times_s, short_side_px=short_side_px, pixels=pixels).data

    def media(self) -> Media:
        """The member that holds the picture (and, in shards that keep the original files, the sound)."""
        if self._media is None:
            kept = [name for name in self.record["members"] if name != "json"]
            extension = "mp4" if "mp4" in kept else kept[0]
            self._media = open_media(self.read(extension), name=f"{self.record['id']}.{extension}")
        return self._media

    def sound(self, start_s: float, spec: AudioSpec, channels: int) -> np.ndarray:
        """At most `spec.samples` samples [channels, S] from `start_s` on."""
        if self.record["audio"]["samples"] is not None:  # a member of its own, at the rate of the shards
            samples, rate_hz = decode_flac(self.read("flac"), start_s, spec.duration_s)
            if rate_hz != spec.rate_hz:
                raise ConfigError(
                    f"{self.record['id']}.flac: its rate is {rate_hz} Hz, but data.audio.rate_hz is {spec.rate_hz};"
                    f" set it to {rate_hz} or build the shards again with the other rate"
                )
        else:
            wanted: Channels = "mono" if channels == 1 else "all"
            media = self.media()
            samples = media.audio_between(start_s, spec.duration_s, rate_hz=spec.rate_hz, channels=wanted).samples
        if channels == 1 and len(samples) > 1:
            omnidirectional = "ambisonics" in self.record["audio"]
            samples = samples[:1] if omnidirectional else samples.mean(0, keepdims=True)
        if len(samples) != channels:
            detail = f"it has {len(samples)} channels, but data.audio.channels is {channels}"
            raise MediaError(self.record["id"], "channels", detail)
        return samples[:, : spec.samples]

    def close(self) -> None:
        if self._media is not None:
            self._media.close()


def _heard(members: _Members, start_s: float, spec: AudioSpec, channels: int, speed: float) -> np.ndarray:
    """The window at `start_s`, or what of its surroundings fills it when played at another speed, around its middle."""
    if speed == 1.0:
        return members.sound(start_s, spec, channels)
    longer = replace(spec, duration_s=round(spec.samples * speed) / spec.rate_hz)
    sound = members.sound(max(0.0, start_s + (spec.duration_s - longer.duration_s) / 2), longer, channels)
    return augment.played_faster(sound, min(spec.samples, round(sound.shape[1] / speed)))


def _sound_end_s(record: dict[str, Any]) -> float:
    sound = record["audio"]
    if sound["samples"] is None:  # kept inside the original file, whose streams end together near enough
        return record["end_s"] - record["start_s"]
    return sound["samples"] / sound["rate_hz"]


def _size_px(frames: np.ndarray) -> tuple[int, int]:
    """Height and width of frames [T, H, W, 3] or of stacked planes [T, H*3/2, W]."""
    height, width = frames.shape[1:3]
    return (height * 2 // 3 if frames.ndim == 3 else height), width


def _limit_aspect(frames: np.ndarray, max_aspect: float) -> np.ndarray:
    """Cut the middle out of frames whose long side exceeds `max_aspect` times the short one (to whole 2x2 blocks)."""
    height, width = _size_px(frames)
    longest = int(min(height, width) * max_aspect) // 2 * 2
    if max(height, width) <= longest:
        return frames
    top, left = (max(0, side - longest) // 4 * 2 for side in (height, width))
    if frames.ndim == 4:
        return frames[:, top : top + longest, left : left + longest]
    parts = []
    for plane, step in zip(split_planes(frames), (1, 2, 2), strict=True):
        part = plane[:, top // step :, left // step :][:, : longest // step, : longest // step]
        parts.append(part.reshape(len(frames), -1))
    return np.concatenate(parts, 1).reshape(len(frames), -1, min(width, longest))
