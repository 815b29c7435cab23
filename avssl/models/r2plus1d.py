"""The video network of AVID and AVSA: a ResNet whose 3x3x3 convolutions are split into space (1x3x3) and time (3x1x1).

Source: Morgado et al., "Audio-Visual Instance Discrimination with Cross-Modal Agreement" (CVPR 2021); R(2+1)D: Tran et
al. (CVPR 2018). Unlike torchvision's `r2plus1d_18` the stem is one full 3D convolution, nothing is widened between the
two halves of a split convolution, the last normalisation of a block follows the addition, and pooling is a maximum.
Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.config import VideoInput
from avssl.models.registry import register
from avssl.models.split_conv import SpaceConv, SpaceMaxPool, TimeConv
from avssl.models.tower import GlobalMaxPool, Tower

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # depth -> residual blocks a stage


class ResidualBlock(nn.Module):
    """Space, time, space, time, plus the shortcut; `stride` applies to the first pair, in all three axes."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.spt_conv1 = SpaceConv(in_channels, channels, stride=stride)
        self.spt_bn1 = nn.BatchNorm3d(channels)
        self.tmp_conv1 = TimeConv(channels, channels, stride)
        self.tmp_bn1 = nn.BatchNorm3d(channels)
        self.spt_conv2 = SpaceConv(channels, channels)
        self.spt_bn2 = nn.BatchNorm3d(channels)
        self.tmp_conv2 = TimeConv(channels, channels)
        self.out_bn = nn.BatchNorm3d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.res_conv = (
            nn.Conv3d(in_channels, channels, 1, stride, bias=False)
            if stride != 1 or in_channels != channels
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.spt_bn1(self.spt_conv1(x)))
        y = self.relu(self.tmp_bn1(self.tmp_conv1(y)))
        y = self.relu(self.spt_bn2(self.spt_conv2(y)))
        return self.relu(self.out_bn(self.tmp_conv2(y) + self.res_conv(x)))


class R2Plus1D(Tower):
    """[B, 3, T, H, W] -> [B, 512].

    depth: 10, 18 or 34 layers. stem_pool: halve height and width again after the stem (AVID at 224 px; AVSA does not,
    at 112 px). The switch changes no parameter shape, so it is part of a model's name.
    """

    feature_dim = 512
    stage_names = ("conv1", "conv2x", "conv3x", "conv4x", "conv5x", "pool")

    def __init__(self, depth: int, *, stem_pool: bool):
        super().__init__()
        stem: list[nn.Module] = [
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
        ]
        if stem_pool:  # pooling and ReLU commute: this order is a quarter of the work
            stem += [SpaceMaxPool(), nn.ReLU()]
        else:
            stem.append(nn.ReLU(inplace=True))
        self.conv1 = nn.Sequential(*stem)
        self.conv2x = _stage(64, 64, BLOCKS[depth][0], stride=1)
        self.conv3x = _stage(64, 128, BLOCKS[depth][1], stride=2)
        self.conv4x = _stage(128, 256, BLOCKS[depth][2], stride=2)
        self.conv5x = _stage(256, 512, BLOCKS[depth][3], stride=2)
        self.pool = GlobalMaxPool()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(ResidualBlock(channels, channels, 1) for _ in range(blocks - 1)))


AVID_INPUT = VideoInput(fps=16, frames=8, size_px=224, resize_px=256, mean=IMAGENET_MEAN, std=IMAGENET_STD)
AVSA_INPUT = VideoInput(fps=16, frames=8, size_px=112, resize_px=112, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@register("video", "avid_r2plus1d_10", input=AVID_INPUT, source="AVID (arXiv 2004.12943), one block a stage")
def avid_r2plus1d_10() -> R2Plus1D:
    return R2Plus1D(10, stem_pool=True)


@register("video", "avid_r2plus1d_18", input=AVID_INPUT, source="AVID (arXiv 2004.12943)")
def avid_r2plus1d_18() -> R2Plus1D:
    return R2Plus1D(18, stem_pool=True)


@register("video", "avid_r2plus1d_34", input=AVID_INPUT, source="AVID (arXiv 2004.12943), 3, 4, 6, 3 blocks")
def avid_r2plus1d_34() -> R2Plus1D:
    return R2Plus1D(34, stem_pool=True)


@register("video", "avsa_r2plus1d_18", input=AVSA_INPUT, source="AVSA (arXiv 2011.01819): no max-pool in the stem")
def avsa_r2plus1d_18() -> R2Plus1D:
    return R2Plus1D(18, stem_pool=False)
