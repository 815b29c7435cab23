"""A feature pyramid over the stages of a video tower, with what is heard at its top (methods C.10).

After Panoptic-FPN's semantic branch: lateral 1x1 convolutions, a path from coarse to fine, each level brought to the
finest one's size step by step, summed, classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 32
_INITIAL_STD = 0.001


class SegmentationHead(nn.Module):
    """Maps of the stages, fine to coarse, each [B, C, T, h, w], and a vector [B, extra] -> logits [B, classes, H, W].

    Args:
        stages: channels and frames of each stage.
        extra: length of the vector that is put beside every position of the coarsest stage; 0: none.
        classes: how many.
        size_px: H = W.
        lateral, width: channels of the pyramid, and of its levels before the sum.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, int]],
        extra: int,
        classes: int,
        size_px: int,
        *,
        lateral: int = 256,
        width: int = 128,
    ):
        super().__init__()
        self.size_px = size_px
        self.over_time = nn.ParameterList(torch.full((frames,), 1 / frames) for _, frames in stages)
        channels = [channels for channels, _ in stages]
        channels[-1] += extra
        self.lateral = nn.ModuleList(nn.Conv2d(each, lateral, 1) for each in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(lateral, lateral, 3, padding=1) for _ in stages)
        self.levels = nn.ModuleList(
            nn.ModuleList(_level(width if step else lateral, width) for step in range(max(1, number)))
            for number in range(len(stages))
        )
        self.classify = nn.Conv2d(width, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], extra: Tensor | None = None) -> Tensor:
        flat = [
            torch.einsum("bcthw,t->bchw", map_, weights) for map_, weights in zip(maps, self.over_time, strict=True)
        ]
        if extra is not None:
            beside = extra[:, :, None, None].expand(-1, -1, *flat[-1].shape[-2:])
            flat[-1] = torch.cat([flat[-1], beside], 1)
        pyramid = [layer(map_) for layer, map_ in zip(self.lateral, flat, strict=True)]
        for finer in range(len(pyramid) - 2, -1, -1):
            pyramid[finer] = pyramid[finer] + F.interpolate(pyramid[finer + 1], size=pyramid[finer].shape[-2:])
        sizes = [map_.shape[-2:] for map_ in pyramid]
        total: Tensor | None = None
        for number, (map_, smooth, steps) in enumerate(zip(pyramid, self.smooth, self.levels, strict=True)):
            x = smooth(map_)
            for step, layer in enumerate(cast(nn.ModuleList, steps)):
                x = layer(x)
                if number:
                    x = F.interpolate(x, size=sizes[number - step - 1], mode="bilinear")
            total = x if total is None else total + x
        return F.interpolate(self.classify(total), size=(self.size_px, self.size_px), mode="bilinear")


def _level(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.GroupNorm(_GROUPS, channels), nn.ReLU())
