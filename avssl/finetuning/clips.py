"""Clips of media files as batches: random moments to train on, evenly spread ones to be judged by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avssl import rng
from avssl.data import augment
from avssl.data.clips import Span, Starts, even_starts, frame_times, random_starts, snap
from avssl.data.collate import Batch, Collator, Sample
from avssl.data.config import AudioSpec, AugmentConfig, VideoSpec
from avssl.data.worker import process_options
from avssl.errors import MediaError
from avssl.finetuning.training_config import ClipTraining
from avssl.media import Media, open_media
from avssl.media.types import Channels
from avssl.models.config import ModelConfig, VideoInput

_OFFSET_S = 0.0  # of sound and picture, the shorter lies within the longer
_SHORT_SIDE = 1.15  # of what is decoded to be cropped at random, over the size that is resized to in a test
_COUNTS: dict[int, Channels] = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class ClipInputs:
    """What a clip is, for the modalities of a classifier. picture: what its frames become on the device."""

    video: VideoSpec | None
    audio: AudioSpec | None
    picture: VideoInput | None


def clip_inputs(model: ModelConfig, modalities: Sequence[str], fit: ClipTraining) -> ClipInputs:
    """The model's own clips, changed as `fit` says."""
    video = audio = picture = None
    if "video" in modalities:
        own = model.video_input
        assert own is not None
        size = fit.size_px or own.size_px
        picture = dataclasses.replace(
            own,
            frames=fit.frames or own.frames,
            fps=fit.fps or own.fps,
            size_px=size,
            resize_px=max(size, round(size * own.resize_px / own.size_px)),
        )
        video = VideoSpec(picture.frames, picture.fps, short_side_px=picture.resize_px)
    if "audio" in modalities:
        heard = model.audio_input
        assert heard is not None
        audio = AudioSpec(heard.rate_hz, heard.duration_s, heard.channels, optional="video" in modalities)
    return ClipInputs(video, audio, picture)


class Failure(NamedTuple):
    """A file that could not be read, by its number, and why."""

    file: int
    cause: str


class Clips(NamedTuple):
    """A batch of the way of `avssl.data` (`row` is the number of the file), or None, and what failed."""

    batch: Batch | None
    failed: list[Failure]


class FileClips(torch.utils.data.Dataset):
    """Decodes requests (file, epoch, draw) into batches; each is a function of (seed, request) alone.

    change: random clips, one a request, with these changes; None: `count` evenly spread ones.
    """

    def __init__(
        self,
        files: Sequence[Path],
        inputs: ClipInputs,
        *,
        count: int = 1,
        change: AugmentConfig | None = None,
        seed: int = 0,
    ):
        self.files, self.inputs, self.count, self.change, self.seed = list(files), inputs, count, change, seed

    def __getitems__(self, requests: list[tuple[int, int, int]]) -> Clips:
        collator, failed = Collator(len(requests)), []
        for file, epoch, draw in requests:
            try:
                collator.add(self._sample(file, epoch, draw))
            except MediaError as error:
                failed.append(Failure(file, f"{error.detail} ({error.reason})"))
            except OSError as error:
                failed.append(Failure(file, f"cannot be read: {error.strerror or error}"))
        arrays = collator.arrays()
        return Clips({name: torch.from_numpy(array) for name, array in arrays.items()} if arrays else None, failed)

    def _sample(self, file: int, epoch: int, draw: int) -> Sample:
        generator = rng.sample_generator(self.seed, epoch, file, draw)
        with open_media(self.files[file]) as media:
            starts, base_s = self._starts(media, generator)
            sample = Sample(file, epoch, [(video + base_s, audio + base_s) for video, audio in starts])
            if self.inputs.video:
                self._add_video(sample, media, self.inputs.video, generator)
            if self.inputs.audio:
                self._add_audio(sample, media, self.inputs.audio, generator)
        return sample

    def _starts(self, media: Media, generator: np.random.Generator) -> tuple[list[Starts], float]:
        """Of clips, and what to add to them: the moment from which on all streams are there."""
        info, specs = media.info, self.inputs
        name = str(media.info.container)
        if specs.video and info.video is None:
            raise MediaError(name, "no-video", "has no picture")
        if specs.audio and info.audio is None and not specs.audio.optional:
            raise MediaError(name, "no-audio", "has no sound")
        streams = [(info.video, specs.video), (info.audio, specs.audio)]
        base_s = max(stream.start_s for stream, spec in streams if stream and spec)
        video, audio = (
            Span(max(0.0, stream.start_s + stream.duration_s - base_s), spec.duration_s) if stream and spec else None
            for stream, spec in streams
        )
        if self.change is not None:
            starts = random_starts(generator, 1, video, audio, _OFFSET_S)
        else:
            starts = even_starts(self.count, video, audio)
        fps = info.video.fps if video and info.video else 0.0
        return [snap(start, fps) for start in starts] if fps else starts, base_s

    def _add_video(self, sample: Sample, media: Media, spec: VideoSpec, generator: np.random.Generator) -> None:
        info = media.info.video
        assert info is not None
        assert spec.short_side_px is not None
        wanted = spec.short_side_px if self.change is None else round(spec.short_side_px * _SHORT_SIDE)
        short = min(wanted, info.height_px, info.width_px)  # larger ones are made on the device
        sample.video = []
        for start_s, _ in sample.starts_s:
            times = frame_times(start_s, spec.frames, spec.fps, info.start_s + info.duration_s)
            frames = media.frames_at(times, short_side_px=short).data
            sample.video.append(frames[np.arange(spec.frames) % len(times)])
        sample.video_size_px = (sample.video[0].shape[1], sample.video[0].shape[2])
        if self.change is not None:
            sample.augmentation |= augment.draw_video(generator, self.change, 1, *sample.video_size_px)

    def _add_audio(self, sample: Sample, media: Media, spec: AudioSpec, generator: np.random.Generator) -> None:
        sample.audio = np.zeros((len(sample.starts_s), spec.channels, spec.samples), np.float32)
        sample.has_audio = media.info.audio is not None
        for window, (_, start_s) in zip(sample.audio, sample.starts_s, strict=True):
            if sample.has_audio and not math.isnan(start_s):
                channels = _COUNTS.get(spec.channels, "all")
                sound = media.audio_between(start_s, spec.duration_s, rate_hz=spec.rate_hz, channels=channels).samples
                if len(sound) != spec.channels:
                    raise MediaError(str(media.info.container), "channels", f"its sound has {len(sound)} channels")
                window[:] = sound
        if self.change is not None:
            sample.augmentation |= augment.draw_audio(generator, self.change, 1)


def batches(clips: FileClips, requests: Sequence[Sequence[tuple[int, int, int]]], workers: int) -> Iterator[Clips]:
    """The batches of these requests, in order, decoded in `workers` processes (0: here)."""
    options: dict[str, Any] = process_options(2) if workers else {}
    loader = torch.utils.data.DataLoader(
        clips,
        batch_sampler=requests,  # type: ignore[arg-type]
        collate_fn=_unchanged,
        num_workers=workers,
        generator=torch.Generator(),  # the global one belongs to the model
        **options,
    )
    return iter(loader)


def epoch_requests(
    files: Sequence[int], epoch: int, draws: int, batch_size: int, seed: int
) -> list[list[tuple[int, int, int]]]:
    """`draws` clips of each file in a random order, cut into batches of about equal size, at most `batch_size`."""
    requests = [(file, epoch, draw) for file in files for draw in range(draws)]
    order = np.random.default_rng([seed, epoch]).permutation(len(requests))
    parts = np.array_split(order, math.ceil(len(requests) / batch_size))
    return [[requests[place] for place in part] for part in parts]


def _unchanged(clips: Any) -> Any:
    return clips
