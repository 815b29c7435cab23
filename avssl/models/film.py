"""Conditioning by shifts: every normalisation of a network gets a vector added that is linear in the condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class AdditiveFilm(nn.Module):
    """All shifts of a network from one condition vector, by one matrix product.

    layout: block name -> widths of the shifts it takes, in the order it takes them. The published networks have one
    linear layer a shift; `linear` holds theirs stacked in the order of `layout`.
    """

    def __init__(self, condition_dim: int, layout: Mapping[str, Sequence[int]]):
        super().__init__()
        self.layout = {name: tuple(widths) for name, widths in layout.items()}
        self.widths = [width for widths in self.layout.values() for width in widths]
        self.linear = nn.Linear(condition_dim, sum(self.widths))
        for weight in self.linear.weight.split(self.widths):
            nn.init.xavier_uniform_(weight)  # each as the layer of its own that it stands for
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> dict[str, list[Tensor]]:
        """[B, condition_dim] -> block name -> its shifts, each [B, width, 1, 1]."""
        return self.cut(self.linear(condition)[:, :, None, None])

    def cut(self, shifts: Tensor) -> dict[str, list[Tensor]]:
        """[B, all widths, …] -> block name -> its shifts."""
        parts = iter(torch.split(shifts, self.widths, dim=1))
        return {name: [next(parts) for _ in widths] for name, widths in self.layout.items()}
