"""The mean and standard deviation, feature by feature, that a front end normalises with, measured over a shard folder.

Each clip counts the same: of each, equally many windows are heard, spread evenly from its start to its end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl import files
from avssl.data.config import AudioSpec, DataConfig
from avssl.data.loader import Loader
from avssl.errors import AvsslError
from avssl.models.config import AudioInput
from avssl.models.front_ends import create_front_end
from avssl.shards import ShardSet

_MOST_WINDOWS = 10  # of a clip, however long it is


class Moments:
    """Mean and standard deviation of each feature over a stream of frames, in float64 (Chan et al.'s update)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0  # sum of squared distances from the mean

    def add(self, values: Tensor) -> None:
        """Take in [..., features]."""
        values = values.double().flatten(0, -2)
        count, mean = self.count + len(values), values.mean(dim=0)
        shift = mean - self._mean
        self._squares = self._squares + (values - mean).square().sum(dim=0)
        self._squares = self._squares + shift.square() * (self.count * len(values) / count)
        self._mean = self._mean + shift * (len(values) / count)
        self.count = count

    def mean(self) -> np.ndarray:
        return torch.as_tensor(self._mean).numpy()

    def std(self) -> np.ndarray:
        """Of the population: divided by the number of frames."""
        return (torch.as_tensor(self._squares) / self.count).sqrt().numpy()


@dataclass
class FrontEndStats:
    """What was measured: `mean_db` and `std_db` [features], and over what."""

    mean_db: np.ndarray
    std_db: np.ndarray
    facts: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what `stats_file` and `avssl-convert --stats` read: `.json`, or else `.npz`."""
        path = Path(path)
        if path.suffix == ".json":
            vectors = {"mean": self.mean_db.tolist(), "std": self.std_db.tolist()}
            files.write_json(path, vectors | {"meta": self.facts})
            return
        meta = np.array(json.dumps(self.facts))
        files.write_atomic(path, lambda file: np.savez(file, mean=self.mean_db, std=self.std_db, meta=meta))


@torch.inference_mode()
def measure_front_end(
    folder: str | os.PathLike[str],
    audio: AudioInput,
    *,
    windows: int | None = None,
    max_clips: int | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> FrontEndStats:
    """Statistics of the decibels that the front end of `audio` gives over the sounds of a shard folder.

    windows: heard of each clip; default: as many as the longest one has room for, at most 10. max_clips: measure so
    many clips drawn with `seed`; default: all. advance: called with 1 after each clip. Equal arguments give equal
    bits on one machine.

    Raises ConfigError if the front end does not fit itself or the shards' rate, ShardError for damaged shards,
    BudgetError or AvsslError if clips cannot be used or a feature never changes.
    """
    front_end = create_front_end(audio)
    shards = ShardSet.open(folder)
    longest_s = float(shards.duration_s[shards.has_audio].max(initial=0))
    config = DataConfig(
        [str(folder)],
        video=None,
        audio=AudioSpec(audio.rate_hz, audio.duration_s, audio.channels),
        clips=windows or min(max(int(longest_s / audio.duration_s + 1e-6), 1), _MOST_WINDOWS),
        sampling="even",
        augment=None,
        batch_size=1,
        seed=seed,
        workers=0,
    )
    loader, moments, clips = Loader(config, endless=False), Moments(), 0
    for batch in loader:
        moments.add(front_end.decibels(batch["audio"].flatten(0, 1)))
        clips += 1
        advance(1)
        if clips == max_clips:
            break
    if not clips:
        raise AvsslError(f"{folder}: the sound of no clip could be used; the last: {loader.skipped_samples[-1]}")
    mean_db, std_db = moments.mean(), moments.std()
    if (still := np.flatnonzero(std_db == 0)).size:
        raise AvsslError(
            f"{folder}: feature {still[0]} and {still.size - 1} more never change in {moments.count} frames, so there "
            "is no std to divide by; measure more clips, or ones that are not silent"
        )
    facts = {
        "front_end": {"name": audio.front_end.name, "kwargs": audio.front_end.kwargs},
        "audio": {key: value for key, value in asdict(audio).items() if key != "front_end"},
        "clips": clips,
        "skipped": loader.skipped.total(),
        "windows": config.clips,
        "frames": moments.count,
        "seed": seed,
        "manifest_sha256": shards.manifest_sha256,
    }
    return FrontEndStats(mean_db, std_db, facts)
