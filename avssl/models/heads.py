"""Projection from a tower's features to the space where the two modalities are compared."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """Linear layers with bias, ReLU between them, no normalisation: [B, in_dim] -> [B, dim] (AVID: 512-512-512-128)."""

    def __init__(self, in_dim: int, hidden: Sequence[int], dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([in_dim, *hidden, dim]):
            layers += [nn.Linear(width_in, width_out), nn.ReLU(inplace=True)]
        self.projection = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)
