"""Adapters: small weights of one task's own behind the frozen stages of a tower.

Behind each stage its map y gets y + U V y, a 1x1 convolution I + U V of low rank, as in reparameterised convolutions
(RCM: W_t * (W_s * x) with W_s frozen; Kanakis et al., ECCV 2020), started at the identity. The tower's own weights and
state dict stay as they are: adapters are attached to it from outside, one task's at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from avssl.models.tower import Tower


class ChannelAdapter(nn.Module):
    """[B, C, …] -> [B, C, …]: y + U V y at every position; 2 C rank parameters."""

    def __init__(self, channels: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, channels))
        self.up = nn.Parameter(torch.zeros(channels, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, y: Tensor) -> Tensor:
        ones = (1,) * (y.dim() - 2)
        convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[y.dim() - 2]
        narrow = convolve(y, self.down.view(*self.down.shape, *ones))
        return y + convolve(narrow, self.up.view(*self.up.shape, *ones))


class Adapters(nn.ModuleDict):
    """One task's adapters, by the tower's stages (all but the pooling). The state dict holds this task's weights."""

    def __init__(self, channels: dict[str, int], rank: int):
        """channels: of each stage's output, by its name (`stage_channels`)."""
        super().__init__({name: ChannelAdapter(count, rank) for name, count in channels.items()})

    def attach(self, tower: Tower) -> list[RemovableHandle]:
        """Adapt the tower until each of the handles is removed. Its state dict does not change."""
        return [
            tower.get_submodule(name).register_forward_hook(lambda _module, _given, y, adapter=adapter: adapter(y))
            for name, adapter in self.items()
        ]

    @contextmanager
    def on(self, tower: Tower) -> Iterator[Tower]:
        """The tower, adapted within the `with`, as it was after it."""
        handles = self.attach(tower)
        try:
            yield tower
        finally:
            for handle in handles:
                handle.remove()


def stage_channels(tower: Tower, example: Tensor) -> dict[str, int]:
    """Channels of the output of each stage but the last, found out with an `example` [1, C, …] of the tower's input."""
    training = tower.training
    with torch.no_grad():
        stages = tower.eval().feature_stages(example)
    tower.train(training)
    return {name: stages[name].shape[1] for name in tower.stage_names[:-1]}
