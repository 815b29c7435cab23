"""Weights and inputs made by a rule from their names, so that numbers computed elsewhere can be compared to ours.

`tests/oracles/*.npz` hold what the published implementations compute (evaluation mode, float32) for these values.
"""

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SEED = 1
ORACLES = Path(__file__).parent / "oracles"


def oracle(name: str) -> dict[str, np.ndarray]:
    with np.load(ORACLES / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def rule_input(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    return torch.from_numpy((_normal(name, shape) * scale).astype(np.float32))


def rule_weight(published_key: str, like: Tensor) -> Tensor:
    """The value of one entry of a published state dict; integer counters stay 0."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    shape = tuple(like.shape)
    n = _normal(published_key, shape)
    if published_key.endswith("running_var"):
        n = 1 + 0.25 * np.abs(n)
    elif published_key.endswith(("running_mean", ".bias")):
        n = 0.1 * n
    elif len(shape) <= 1:
        n = 1 + 0.1 * n
    else:
        n = n * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


def _normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())]).standard_normal(shape)


def assert_near(ours: Tensor, published: np.ndarray, relative: float = 1e-4) -> None:
    """Equal to `relative` of the largest published value."""
    published = torch.from_numpy(published)
    assert ours.shape == published.shape
    difference = (ours - published).abs().max() / published.abs().max()
    assert difference <= relative, f"differs by {difference:.2e} of the largest value"
