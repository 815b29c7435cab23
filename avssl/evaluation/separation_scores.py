"""What the protocols of separation share: sounds from files, queries, scores of an item, and their summary."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avssl.errors import MediaError, UsageError
from avssl.media import open_media
from avssl.models.folder import load
from avssl.separation.metrics import improvement, median_by_class, sdr, si_sdr
from avssl.separation.options import SeparationOptions
from avssl.separation.queries import Query
from avssl.separation.separator import Separator

UNGATED = SeparationOptions(threshold=0.0)  # the answer is known to be there

Skipped = list[dict[str, str]]


def load_separator(model: str | None, device: str) -> Separator:
    """Raises UsageError without a model, ModelError for another kind of model."""
    if model is None:
        raise UsageError("model: is null, but this protocol needs a separator; give --model FOLDER")
    separator: Separator = load(model, device=device, kind="separator")
    return separator


def read_sound(path: Path, rate_hz: int, seconds: float | None = None) -> Tensor:
    """The first `seconds` of a file's sound, or all of it, mono [S]. Raises MediaError."""
    with open_media(path) as media:
        if media.info.audio is None:
            raise MediaError(str(path), "no-audio", "has no sound")
        length_s = media.info.audio.start_s + media.info.audio.duration_s
        sound = media.audio_between(0.0, length_s if seconds is None else min(seconds, length_s), rate_hz=rate_hz)
    if sound.samples.shape[1] == 0:
        raise MediaError(str(path), "empty", "its sound is empty")
    return torch.from_numpy(sound.samples[0])


def readable(paths: Iterable[Path], read: Callable[[Path], Tensor], skipped: Skipped) -> Iterator[Tensor]:
    """The sounds of the files that can be read; the others are noted in `skipped`."""
    for path in paths:
        try:
            yield read(path)
        except (MediaError, OSError) as error:
            skipped.append({"item": str(path), "cause": str(error)})


def average_query(
    separator: Separator, name: str, paths: Sequence[Path], most: int, seed: int, skipped: Skipped
) -> Query:
    """The mean over training sounds, at most `most` of them, drawn. Raises UsageError where none has any sound."""
    drawn = random.Random(f"{seed} {name}").sample(list(paths), min(most, len(paths)))
    examples = []
    for sound in readable(drawn, lambda path: read_sound(path, separator.rate_hz), skipped):
        if (sound.abs() > 0.02).any():
            examples.append((sound, separator.rate_hz))
    if not examples:
        raise UsageError(
            f"protocol: no training sound of the class {name!r} is loud enough for a query; check the data"
        )
    return separator.query_of_sounds(examples, name)


def item_scores(estimate: Tensor, reference: Tensor, mixture: Tensor) -> dict[str, float]:
    """Plain and scale-invariant ratios [S] and what they gained over the mixture, in dB."""
    return {
        "sdr_db": float(sdr(estimate, reference)),
        "sdri_db": float(improvement(sdr, estimate, reference, mixture)),
        "si_sdr_db": float(si_sdr(estimate, reference)),
        "si_sdri_db": float(improvement(si_sdr, estimate, reference, mixture)),
    }


def oracle_mask(mixture: Tensor, target: Tensor, fft: int, hop: int) -> Tensor:
    """What the ratio mask |S| / (|S| + |N|), made from the answer, gets out of the mixture [S]."""
    window = torch.hann_window(fft)

    def transform(x: Tensor) -> Tensor:
        return torch.stft(x, fft, hop, window=window, return_complex=True)

    rest = transform(mixture - target).abs()
    wanted = transform(target).abs()
    masked = transform(mixture) * (wanted / (wanted + rest).clamp(min=1e-10))
    return torch.istft(masked, fft, hop, window=window, length=mixture.shape[-1])


def summary(items: Sequence[tuple[str, dict[str, float]]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Median over the items of each class, then mean over classes: (metrics, rows of a table by class)."""
    classes = [name for name, _ in items]
    metrics: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {
        name: {"class": name, "items": classes.count(name)} for name in sorted(set(classes))
    }
    for key in items[0][1] if items else []:
        values = torch.tensor([scores[key] for _, scores in items], dtype=torch.float64)
        metrics[key], medians = median_by_class(values, classes)
        for name, median in medians.items():
            rows[name][key] = round(median, 4)
    return metrics, list(rows.values())
