"""Towers that learn the rendered scenes in a minute on one core: the picture's is that of `eval.robustness`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.registry import register
from avssl.models.tower import Tower
from eval.alignment.scenes import BANDS, FPS, HEARD_FRAMES, RATE_HZ
from eval.robustness.towers import VIDEO

__all__ = ["AUDIO", "VIDEO"]
AUDIO = "study_scene_audio"


@register(
    "audio",
    AUDIO,
    input=AudioInput(RATE_HZ, HEARD_FRAMES / FPS, 4, FrontEndConfig("log_mel", {"bands": BANDS})),
    source="eval/alignment",
)
class SceneAudio(Tower):
    """[B, in_channels, time, BANDS] -> [B, 8 width]: mean and maximum over time, then three linear layers.

    Where a sound comes from is in the levels of channels against each other in the same band, which a linear layer over
    all of them reads at once; a convolution over time and frequency finds it later.
    """

    stage_names = ("time", "layer1", "layer2", "pool")

    def __init__(self, in_channels: int = 4, width: int = 8):
        super().__init__()
        self.feature_dim = 8 * width
        self.time = _MeanAndMaximum()
        self.layer1 = nn.Sequential(nn.Linear(2 * in_channels * BANDS, 128), nn.BatchNorm1d(128), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU())
        self.pool = nn.Linear(128, self.feature_dim)


class _MeanAndMaximum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(2), x.amax(2)], -1).flatten(1)
