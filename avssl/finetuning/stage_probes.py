"""Linear classifiers on the stages of a frozen tower, as AVID probed its networks on Kinetics.

Maps are pooled to 1 x s x s by the maximum, normalised as a batch and classified. Unlike in the released code the
tower's own batch normalisation keeps its statistics: a frozen network is frozen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avssl.config import nearest
from avssl.errors import ConfigError
from avssl.models.adapters import stage_channels
from avssl.models.tower import Tower


class StageProbes(nn.Module):
    """Clips [N, 3, T, H, W] -> logits [N, stages, classes].

    sides: by the stage's name, to what height and width its maps are pooled. example: [1, 3, T, H, W]. Raises
    ConfigError for a stage that the tower lacks.
    """

    def __init__(self, tower: Tower, sides: Mapping[str, int], classes: int, example: Tensor):
        super().__init__()
        self.tower = tower.requires_grad_(False)
        channels = stage_channels(tower, example)
        self.probes = nn.ModuleDict()
        for name, side in sides.items():
            if name not in channels:
                raise ConfigError(f"protocol.stages: the tower has no stage {name!r}; {nearest(name, channels)}")
            features = channels[name] * side * side
            self.probes[name] = nn.Sequential(
                nn.AdaptiveMaxPool3d((1, side, side)),
                nn.Flatten(),
                nn.BatchNorm1d(features),
                nn.Linear(features, classes),
            )

    def forward(self, video: Tensor) -> Tensor:
        with torch.no_grad():
            stages = self.tower.feature_stages(video)
        return torch.stack([probe(stages[name]) for name, probe in self.probes.items()], 1)

    def train(self, mode: bool = True) -> StageProbes:
        super().train(mode)
        self.tower.eval()
        return self
