"""Small towers that learn something on two CPU cores in minutes: for the demo, the tests, and debug configurations.

The stages have the names of the large ones, so probes and `--layers` work alike. Weights are kept channels-last, which
CPUs (and tensor cores) compute markedly faster; no caller has to know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.config import AudioInput, FrontEndConfig, VideoInput
from avssl.models.registry import register
from avssl.models.split_conv import SpaceConv, TimeConv
from avssl.models.tower import GlobalMeanPool, Tower

WIDTHS = (32, 64, 128, 256)
_HALF = (0.5, 0.5, 0.5)

VIDEO_INPUT = VideoInput(fps=16, frames=8, size_px=64, resize_px=72, mean=_HALF, std=(0.25, 0.25, 0.25))
AUDIO_INPUT = AudioInput(
    rate_hz=24000,
    duration_s=2.0,
    channels=1,
    front_end=FrontEndConfig(
        "log_mel",
        # The statistics are those of about a hundred everyday sounds.
        {"fft": 1024, "hop": 480, "bands": 64, "exponent": 2.0, "mean_db": -44.0, "std_db": 26.0},
    ),
)


class TinyVideoBlock(nn.Module):
    """One 1x3x3 and one 3x1x1 convolution beside a shortcut; `stride` halves time, height and width."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.space = SpaceConv(in_channels, channels, stride=stride)
        self.space_bn = nn.BatchNorm3d(channels)
        self.time = TimeConv(channels, channels, stride)
        self.time_bn = nn.BatchNorm3d(channels)
        self.shortcut = nn.Conv3d(in_channels, channels, 1, stride, bias=False) if stride != 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.space_bn(self.space(x)))
        return self.relu(self.time_bn(self.time(y)) + self.shortcut(x))


@register("video", "tiny_video", input=VIDEO_INPUT, source="this project: narrow (2+1)D ResNet, patch stem")
class TinyVideo(Tower):
    """[B, 3, T, H, W] -> [B, 256]; made for 8 frames of 64 to 112 px."""

    feature_dim = WIDTHS[-1]
    stage_names = ("conv1", "conv2x", "conv3x", "conv4x", "conv5x", "pool")

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(
            SpaceConv(3, WIDTHS[0], size=7, stride=4),
            nn.BatchNorm3d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.conv2x = TinyVideoBlock(WIDTHS[0], WIDTHS[0], 1)
        self.conv3x = TinyVideoBlock(WIDTHS[0], WIDTHS[1], 2)
        self.conv4x = TinyVideoBlock(WIDTHS[1], WIDTHS[2], 2)
        self.conv5x = TinyVideoBlock(WIDTHS[2], WIDTHS[3], 2)
        self.pool = GlobalMeanPool()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


class FrequencyCoordinate(nn.Module):
    """Appends a channel that rises from -1 to 1 over frequency, so that pitch survives pooling: [B, C + 1, …]."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[-1], device=x.device, dtype=x.dtype)
        return torch.cat([x, ramp.expand_as(x[:, :1])], dim=1)


def _conv(in_channels: int, channels: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


@register("audio", "tiny_audio", input=AUDIO_INPUT, source="this project: narrow CNN that knows pitch")
class TinyAudio(Tower):
    """[B, in_channels, time, frequency] -> [B, 256]; made for about 100 frames of 64 mel bands."""

    feature_dim = WIDTHS[-1]
    stage_names = ("conv1", "block1", "block2", "block3", "block4", "pool")

    def __init__(self, in_channels: int = 1):
        super().__init__()
        self.conv1 = nn.Sequential(FrequencyCoordinate(), *_conv(in_channels + 1, WIDTHS[0], 5, 2))
        self.block1 = _conv(WIDTHS[0], WIDTHS[1], 3, 2)
        self.block2 = _conv(WIDTHS[1], WIDTHS[2], 3, 2)
        self.block3 = _conv(WIDTHS[2], WIDTHS[3], 3, 2)
        self.block4 = _conv(WIDTHS[3], WIDTHS[3], 3, 1)
        self.pool = GlobalMeanPool()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
