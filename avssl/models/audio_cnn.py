"""The audio network of AVID and AVSA: nine 3x3 convolutions on a spectrogram, no residuals, maximum pooling.

Source: Morgado et al., AVID (arXiv 2004.12943) and AVSA (arXiv 2011.01819). Parameter names are those of the published
checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.registry import register
from avssl.models.tower import GlobalMaxPool, Tower


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch normalisation and ReLU; the first has the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class AudioCNN9(Tower):
    """[B, in_channels, time, frequency] -> [B, 512].

    block1_stride: 2 in AVID, 1 in AVSA. It changes no parameter shape, so it is part of a model's name.
    """

    feature_dim = 512
    stage_names = ("conv1", "block1", "block2", "block3", "block4", "pool")

    def __init__(self, in_channels: int, *, block1_stride: int):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        self.block1 = ConvBlock(64, 64, block1_stride)
        self.block2 = ConvBlock(64, 128, 2)
        self.block3 = ConvBlock(128, 256, 2)
        self.block4 = ConvBlock(256, 512, 1)
        self.pool = GlobalMaxPool()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


AVID_INPUT = AudioInput(rate_hz=24000, duration_s=2.0, channels=1, front_end=FrontEndConfig("avid_spectrogram"))
AVSA_INPUT = AudioInput(rate_hz=24000, duration_s=1.0, channels=4, front_end=FrontEndConfig("log_mel"))


@register("audio", "avid_audio_cnn9", input=AVID_INPUT, source="AVID (arXiv 2004.12943)")
def avid_audio_cnn9(in_channels: int = 1) -> AudioCNN9:
    return AudioCNN9(in_channels, block1_stride=2)


@register("audio", "avsa_audio_cnn9", input=AVSA_INPUT, source="AVSA (arXiv 2011.01819): first block not strided")
def avsa_audio_cnn9(in_channels: int = 4) -> AudioCNN9:
    return AudioCNN9(in_channels, block1_stride=1)
