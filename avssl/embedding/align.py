"""A model whose towers stay as they are gets heads that bring their features into one space, by canonical correlation.

Nothing is trained: a few hundred windows of a user's own videos and less than a minute are enough to search across
modalities. How many axes and how much ridge: with few files held-out partners tell candidates apart badly, and the
luckiest is a bad choice; so much ridge is kept unless less is clearly better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from avssl.embedding.cca import Aligned, Projection, cca
from avssl.errors import UsageError
from avssl.models.config import HeadConfig
from avssl.models.folder import load_network, save_model

LAYERS = ("video.pool", "audio.pool")  # what heads are given
DIMS = (2, 4, 8, 16, 32, 64, 128)
USUAL_DIM = 16
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
PARTS = 4  # of the files, each held out once to decide; in the end all are used
CLEARLY = 2.0  # standard errors


class Choice(NamedTuple):
    """Axes and ridge, and the mean rank of held-out partners that they gave, 0 the best and 0.5 luck."""

    dim: int
    ridge: float
    mean_rank: float


def align(video: np.ndarray, audio: np.ndarray, files: np.ndarray, *, seed: int = 0) -> tuple[Aligned, Choice]:
    """Projections fitted to pairs `video` [N, D], `audio` [N, E] of the `files` [N]; files are held out whole.

    Raises UsageError if there are fewer than four files.
    """
    names = np.unique(files)
    if len(names) < 4:
        raise UsageError(f"alignment needs windows of at least 4 files with picture and sound, got {len(names)}")
    ranks: dict[tuple[float, int], list[float]] = {}
    order = np.random.default_rng(seed).permutation(names)
    for part in range(min(PARTS, len(names) // 2)):
        test = np.isin(files, order[part :: min(PARTS, len(names) // 2)])
        for ridge in RIDGES:
            whole = cca(video[~test], audio[~test], ridge=ridge, weights=file_weights(files[~test]))
            for dim in DIMS:
                if dim <= len(whole.correlations):
                    cut = whole.cut(dim)
                    rank = mean_rank(cut.first(video[test]), cut.second(audio[test]), files[test])
                    ranks.setdefault((ridge, dim), []).append(rank)
    best = choose({key: found for key, found in ranks.items() if len(found) == len(ranks[RIDGES[0], DIMS[0]])})
    whole = cca(video, audio, ridge=best.ridge, weights=file_weights(files))
    return whole.cut(best.dim), best


def choose(ranks: Mapping[tuple[float, int], Sequence[float]]) -> Choice:
    """From mean ranks by (ridge, dim), one a part: among all that are not clearly worse than the best, the most ridge,
    then the number of axes next to the usual one."""
    mean = {key: float(np.mean(found)) for key, found in ranks.items()}
    best = min(mean, key=lambda key: mean[key])
    error = np.std(ranks[best], ddof=1) / np.sqrt(len(ranks[best])) if len(ranks[best]) > 1 else 0.0
    near = [key for key in mean if mean[key] <= mean[best] + CLEARLY * error]
    ridge, dim = min(near, key=lambda key: (-key[0], abs(np.log2(key[1] / USUAL_DIM))))
    return Choice(dim, ridge, mean[ridge, dim])


def file_weights(files: np.ndarray) -> np.ndarray:
    """[N] weights of windows that make each file count the same, whatever its length; they add up to 1."""
    _, number, count = np.unique(files, return_inverse=True, return_counts=True)
    return 1.0 / (count[number] * len(count))


def mean_rank(video: np.ndarray, audio: np.ndarray, files: np.ndarray) -> float:
    """Where a window's sound is among the sounds of other files' windows, mean of both directions: 0 first, 1 last.

    Windows of the same file are no candidates: they look and sound alike.
    """
    similar = _unit(video) @ _unit(audio).T
    other = files[:, None] != files[None, :]
    ranks = []
    for scores in (similar, similar.T):
        own = np.diagonal(scores)[:, None]
        ranks.append((((scores > own) + 0.5 * (scores == own)) * other).sum(1) / other.sum(1))
    return float(np.mean(ranks))


def write_aligned(model: str, out: Path, aligned: Aligned, choice: Choice, facts: dict[str, Any]) -> None:
    """The model folder `out`: `model` with its heads replaced. Raises UsageError for a model of one modality."""
    network, description = load_network(model, "two_tower")
    config = dataclasses.replace(network.config, head=HeadConfig(hidden=[], dim=choice.dim)).without_files()
    from avssl.models.two_tower import TwoTower

    renewed = TwoTower(config)
    state = {key: value for key, value in network.state_dict().items() if "_head." not in key}
    heads = {"video": aligned.first, "audio": aligned.second}
    for name, projection in heads.items():
        state |= {f"{name}_head.projection.0.{key}": value for key, value in _linear(projection).items()}
    renewed.load_state_dict(state)
    kept = {key: value for key, value in description.items() if key in ("licence", "source", "source_sha256")}
    found: dict[str, Any] = {"dim": choice.dim, "ridge": choice.ridge, "held_out_mean_rank": round(choice.mean_rank, 4)}
    found["correlations"] = [round(float(value), 4) for value in aligned.correlations]
    card = _CARD.format(model=model, dim=choice.dim, rank=choice.mean_rank, **facts)
    save_model(out, renewed, config, card=card, extra=kept | {"aligned": {"model": model, **facts, **found}})


_CARD = """\
# {model}, aligned

The towers of `{model}` with linear heads found by canonical correlation on {pairs} windows of {files} files: {dim}
axes. On files held out to choose the number of axes, a window's own sound was on average at place {rank:.0%} of the
sounds of other files (50 % is luck); the heads here were then fitted to all files.
"""


def _linear(projection: Projection) -> dict[str, torch.Tensor]:
    """(x - mean) @ weight as weight and bias of a linear layer."""
    weight = torch.from_numpy(projection.weight.T.copy()).float()
    return {"weight": weight, "bias": torch.from_numpy(-projection.mean @ projection.weight).float()}


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
