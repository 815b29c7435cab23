"""Towers that learn the rendered world in seconds on one core: the tiny towers' parts, narrower and fewer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.config import AudioInput, FrontEndConfig, VideoInput
from avssl.models.registry import register
from avssl.models.tiny import FrequencyCoordinate
from avssl.models.tower import GlobalMeanPool, Tower
from eval.robustness.clips import BANDS, FPS, FRAMES, RATE_HZ, SIDE_PX, STORED_PX

VIDEO, AUDIO = "study_video", "study_audio"

_HALF, _QUARTER = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def _conv2d(in_channels: int, channels: int, size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, size, 2, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _conv3d(in_channels: int, channels: int, size: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Sequential:
    padding = (size[0] // 2, size[1] // 2, size[2] // 2)
    conv = nn.Conv3d(in_channels, channels, size, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(channels), nn.ReLU(inplace=True))


def _block(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        *_conv3d(in_channels, channels, (1, 3, 3), (1, 2, 2)), *_conv3d(channels, channels, (3, 1, 1), (2, 1, 1))
    )


@register("video", VIDEO, input=VideoInput(FPS, FRAMES, SIDE_PX, STORED_PX, _HALF, _QUARTER), source="eval/robustness")
class StudyVideo(Tower):
    """[B, 3, T, H, W] -> [B, feature_dim]; made for 8 frames of 32 px."""

    stage_names = ("stem", "conv2", "conv3", "pool")

    def __init__(self, width: int = 16):
        super().__init__()
        self.feature_dim = 4 * width
        self.stem = _conv3d(3, width, (1, 7, 7), (1, 4, 4))
        self.conv2 = _block(width, 2 * width)
        self.conv3 = _block(2 * width, 4 * width)
        self.pool = GlobalMeanPool()
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


@register(
    "audio",
    AUDIO,
    input=AudioInput(RATE_HZ, FRAMES / FPS, 1, FrontEndConfig("log_mel", {"bands": BANDS})),
    source="eval/robustness",
)
class StudyAudio(Tower):
    """[B, in_channels, time, frequency] -> [B, feature_dim]; made for 40 frames of 40 bands."""

    stage_names = ("conv1", "conv2", "conv3", "conv4", "pool")

    def __init__(self, in_channels: int = 1, width: int = 16):
        super().__init__()
        self.feature_dim = 8 * width
        self.conv1 = nn.Sequential(FrequencyCoordinate(), *_conv2d(in_channels + 1, width, 5))
        self.conv2 = _conv2d(width, 2 * width, 3)
        self.conv3 = _conv2d(2 * width, 4 * width, 3)
        self.conv4 = _conv2d(4 * width, 8 * width, 3)
        self.pool = GlobalMeanPool()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Ready(nn.Module):
    """In place of a front end where the sounds already are spectrograms, computed once for all runs."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        return spectrogram
