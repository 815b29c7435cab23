"""What all towers share: features in, one vector out, named stages between, and loading of a file of weights."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from avssl.models.weights import load_into, read_weights


class Tower(nn.Module):
    """Maps [B, C, …] (video: [B, 3, T, H, W] normalised; audio: [B, C, time, frequency]) to features [B, feature_dim].

    The stages named in `stage_names` are child modules that run in this order; the last one pools.
    """

    feature_dim: int
    stage_names: tuple[str, ...]
    any_length: ClassVar[bool] = True  # False: the number of frames is fixed when the tower is built
    staged: ClassVar[bool] = True  # False: stages are no child modules, and cannot be run from the middle on

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        return x

    def feature_stages(self, x: Tensor) -> dict[str, Tensor]:
        """The output of every stage by name: maps [B, C, …], at last `pool` [B, feature_dim], the tower's output."""
        return self.later_stages(None, x)

    def later_stages(self, after: str | None, x: Tensor) -> dict[str, Tensor]:
        """The same of the stages behind `after`, whose output is `x`; None: of all."""
        stages = {}
        x = channels_last(x)
        for name in self.stages_after(after):
            stages[name] = x = self.get_submodule(name)(x)
        return stages

    def stages_after(self, name: str | None) -> tuple[str, ...]:
        """The stages behind the one of this name; None: all."""
        return self.stage_names[0 if name is None else self.stage_names.index(name) + 1 :]

    def load_weights(self, path: str) -> None:
        """Load parameters from the user's file. Raises ModelError naming what does not fit."""
        load_into(self, read_weights(path), path)


def channels_last(x: Tensor) -> Tensor:
    """The same tensor [B, C, …] with its channels side by side in memory, the layout that convolutions are fast in."""
    return x.contiguous(memory_format=torch.channels_last_3d if x.dim() == 5 else torch.channels_last)


class GlobalMaxPool(nn.Module):
    """[B, C, …] -> [B, C]: the largest value over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).amax(dim=2)


class GlobalMeanPool(nn.Module):
    """[B, C, …] -> [B, C]: the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(dim=2)
