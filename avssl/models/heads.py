"""Heads on a tower's features: projection to the space where the modalities are compared, and classifiers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
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


class LinearHead(nn.Module):
    """Pooled features [B, D] -> logits [B, classes]; `unit` scales them to unit length first."""

    def __init__(self, features: int, classes: int, *, unit: bool, dropout: float):
        super().__init__()
        self.unit, self.dropout = unit, nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.linear(self.dropout(F.normalize(pooled, dim=-1) if self.unit else pooled))

    @torch.no_grad()
    def put(self, weight: Tensor, bias: Tensor) -> None:
        """Start from a solved head: weight [classes, D], bias [classes]."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class CosineHead(nn.Module):
    """Pooled features [B, D] -> logits [B, classes]: cosines to a vector of each class, times a learned factor.

    With class means as vectors it answers as the nearest class mean does.
    """

    def __init__(self, features: int, classes: int, *, scale: float = 10.0):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(classes, features))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, pooled: Tensor) -> Tensor:
        return self.log_scale.exp() * F.linear(F.normalize(pooled, dim=-1), F.normalize(self.vectors, dim=-1))

    @torch.no_grad()
    def put(self, vectors: Tensor, scale: float) -> None:
        """Start from these vectors [classes, D] and factor on cosines."""
        self.vectors.copy_(vectors)
        self.log_scale.fill_(math.log(scale))
