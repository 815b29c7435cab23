"""What is left of a mixture, and sources that sum to it. Nothing is ever rescaled."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def residual(mixture: Tensor, sources: Tensor) -> Tensor:
    """Mixture [..., S] minus the sum of sources [..., Q, S]: everything that no query took."""
    return mixture - sources.sum(dim=-2)


def make_consistent(mixture: Tensor, sources: Tensor, share: Literal["equal", "energy"] = "energy") -> Tensor:
    """Sources [..., Q, S] that sum to the mixture [..., S]: the residual is divided among them.

    share: "equal" is the least change (the projection onto what sums to the mixture); "energy" gives each source a
    part in proportion to its energy over the whole signal, so silent sources stay silent.
    (Wisdom et al., "Differentiable consistency constraints", arXiv 1811.08521.)
    """
    left = residual(mixture, sources)[..., None, :]
    if share == "equal":
        return sources + left / sources.shape[-2]
    energy = sources.square().mean(dim=-1, keepdim=True)
    floor = 1e-10  # all silent: equal parts
    return sources + left * (energy + floor) / (energy + floor).sum(dim=-2, keepdim=True)
