"""Canonical correlation: the directions in which paired vectors of two kinds vary together (Hotelling 1936)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from avssl.errors import UsageError


class Projection(NamedTuple):
    """x [N, D] -> (x - mean) @ weight: [N, k], centred; without ridge of unit variance in each direction.

    mean: [D]. weight: [D, k]."""

    mean: np.ndarray
    weight: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) @ self.weight


class Aligned(NamedTuple):
    """Projections of both kinds into one space, and the correlations [k] along its axes, falling."""

    first: Projection
    second: Projection
    correlations: np.ndarray

    def cut(self, dim: int) -> Aligned:
        """The first `dim` axes alone."""
        first, second = (Projection(side.mean, side.weight[:, :dim]) for side in (self.first, self.second))
        return Aligned(first, second, self.correlations[:dim])


def cca(first: np.ndarray, second: np.ndarray, *, ridge: float, weights: np.ndarray | None = None) -> Aligned:
    """All axes that N pairs `first` [N, D], `second` [N, E] have in common, in float64.

        A = Cxx^(-1/2) Cxy Cyy^(-1/2) = U S V^T,   Wx = Cxx^(-1/2) U,   Wy = Cyy^(-1/2) V

    with Cxx the covariance plus `ridge` times its mean variance on the diagonal: 0 trusts every direction, however
    little of it was seen; large values tend to the directions of largest covariance. weights: of the pairs [N], adding
    up to 1; None: all alike.

    Raises UsageError for fewer than two pairs.
    """
    if len(first) != len(second) or len(first) < 2:
        raise UsageError(f"alignment needs at least 2 pairs, got {len(first)} and {len(second)} vectors")
    share = np.full(len(first), 1 / len(first)) if weights is None else weights
    sides = []
    for x in (first.astype(np.float64), second.astype(np.float64)):
        mean = share @ x
        # In the basis of the data's own axes the covariance is diagonal, and no larger than N however large D is.
        left, scale, axes = np.linalg.svd((x - mean) * np.sqrt(share)[:, None], full_matrices=False)
        # Directions in which nothing varies carry nothing over; they are left out.
        seen = scale > max(x.shape) * np.finfo(np.float64).eps * max(scale[0], np.finfo(np.float64).tiny)
        left, variance, axes = left[:, seen], scale[seen] ** 2, axes[seen]
        white = np.sqrt(variance + ridge * variance.sum() / x.shape[1])
        sides.append((mean, left * (scale[seen] / white), axes.T / white))
    (mean_x, x, from_x), (mean_y, y, from_y) = sides
    # x and y are the whitened data times the roots of their weights, so that x^T y is the matrix A above.
    u, correlations, v = np.linalg.svd(x.T @ y, full_matrices=False)
    return Aligned(Projection(mean_x, from_x @ u), Projection(mean_y, from_y @ v.T), correlations)
