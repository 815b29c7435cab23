"""Moment probing: a head that sees how features vary together over a map, not only their mean.

Source: Gao et al., Tuning Pre-trained Model via Moment Probing (ICCV 2023), as its public code has it: tokens are
projected to `width` channels in `parts`, each normalised; of neighbouring parts the cross moment H_i^T H_{i+1} / L is
scaled to unit length; two 3x3 convolutions with stride 2 shrink the maps, a linear layer answers, and its logits are
averaged with those of a linear layer on the pooled feature. What the code subtracts (`center: scalar`) is one number an
example, so that the maps are moments, not covariances; `center: token` subtracts the mean token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl.models.classifier_config import MomentConfig
from avssl.models.heads import LinearHead


class MomentHead(nn.Module):
    """A tower's last map [B, C, …] and its pooled feature [B, D] -> logits [B, classes].

    linear: the head on the pooled feature.
    """

    def __init__(self, channels: int, linear: LinearHead, classes: int, config: MomentConfig):
        super().__init__()
        self.config = config
        self.project = nn.Linear(channels, config.width)
        side = config.width // config.parts
        self.norms = nn.ModuleList(nn.LayerNorm(side) for _ in range(config.parts))
        maps = config.parts - 1
        self.shrink = nn.Sequential(nn.Conv2d(maps, maps, 3, 2), nn.GELU(), nn.Conv2d(maps, maps, 3, 2))
        left = ((side - 3) // 2 + 1 - 3) // 2 + 1
        self.moments = nn.Linear(maps * left * left, classes)
        self.linear = linear

    def forward(self, tokens: Tensor, pooled: Tensor) -> Tensor:
        """tokens: [B, C, …] positions in any order; pooled: [B, D]."""
        moments = self.shrink(self.cross_moments(tokens))
        return (self.moments(moments.flatten(1)) + self.linear(pooled)) / 2

    @torch.no_grad()
    def put(self, weight: Tensor, bias: Tensor) -> None:
        """Start with the answers of a solved linear head: the part of the moments is silent, of the mean the other's
        half is made up for."""
        self.moments.weight.zero_()
        self.moments.bias.zero_()
        self.linear.put(2 * weight, 2 * bias)

    def cross_moments(self, tokens: Tensor) -> Tensor:
        """[B, C, …] -> [B, parts - 1, width / parts, width / parts], each map of unit length."""
        x = self.project(tokens.flatten(2).transpose(1, 2))
        normed = [norm(part) for norm, part in zip(self.norms, x.chunk(self.config.parts, dim=2), strict=True)]
        x = torch.stack(normed, 1)  # [B, parts, L, side]
        if self.config.center == "scalar":
            x = x - x.mean((1, 2, 3), keepdim=True)
        elif self.config.center == "token":
            x = x - x.mean(2, keepdim=True)
        maps = x[:, :-1].transpose(2, 3) @ x[:, 1:] / x.shape[2]
        return F.normalize(maps.flatten(2), dim=2).view_as(maps)
