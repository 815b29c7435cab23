"""Queries from files: sounds like these, the sound that belongs to this clip, a vector that another model gave."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from avssl.errors import MediaError, UsageError
from avssl.media import open_media
from avssl.separation.queries import Query
from avssl.separation.separator import Separator

CLIPS = 8  # of a video, evenly spaced, whose embeddings are averaged
LONGEST_S = 600.0  # of an example: more does not change the mean


def query_of_files(separator: Separator, paths: Sequence[Path]) -> Query:
    """What sounds like the files: the mean over each one's chunks, then over files.

    Raises MediaError for a file without readable sound, UsageError for a silent one.
    """
    examples = []
    for path in paths:
        with open_media(path) as media:
            if media.info.audio is None:
                raise MediaError(str(path), "no-audio", "has no sound to be an example")
            duration_s = min(media.info.audio.start_s + media.info.audio.duration_s, LONGEST_S)
            sound = media.audio_between(0.0, duration_s, rate_hz=separator.rate_hz)
        examples.append((torch.from_numpy(sound.samples), separator.rate_hz))
        if sound.samples.size == 0:
            raise UsageError(f"{path}: is empty; give an example with sound")
    return separator.query_of_sounds(examples, "like " + ", ".join(path.stem for path in paths))


def query_of_clip(separator: Separator, path: Path) -> Query:
    """The sound that belongs to the pictures of a video: the mean over `CLIPS` clips, evenly spaced.

    Raises UsageError for a separator that was not trained with an audio-visual model, MediaError for a file without
    pictures.
    """
    wanted = separator.need_encoder().video_input
    with open_media(path) as media:
        if media.info.video is None:
            raise MediaError(str(path), "no-video", "has no pictures to ask with")
        video = media.info.video
        room_s = max(0.0, video.duration_s - wanted.duration_s)
        starts_s = np.unique(np.linspace(0, room_s, CLIPS).round(3)) + video.start_s
        times_s = [
            [min(start_s + frame / wanted.fps, video.start_s + video.duration_s) for frame in range(wanted.frames)]
            for start_s in starts_s
        ]
        clips = [media.frames_at(times, short_side_px=wanted.resize_px).data for times in times_s]
    return separator.query_of_video(torch.from_numpy(np.stack(clips)), f"sound of {path.stem}")


def query_of_vector_file(separator: Separator, path: Path) -> Query:
    """Features in a .npy file, [query.features] or [n, query.features] (then their mean). Raises UsageError."""
    try:
        features = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read as a .npy file of numbers ({error})") from error
    expected = separator.config.query.features
    if features.ndim not in (1, 2) or features.shape[-1] != expected or not np.issubdtype(features.dtype, np.number):
        raise UsageError(f"{path}: holds {features.dtype} {list(features.shape)}, this separator takes [{expected}]")
    return separator.query_of_vector(features.reshape(-1, expected).mean(axis=0), path.stem)
