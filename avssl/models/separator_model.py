"""The networks of a separator's folder as one module: what separates, and what makes its condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.cnn14 import Cnn14, create_tagger
from avssl.models.query_net import QueryNet
from avssl.models.resunet30 import ResUNet30
from avssl.models.sound_config import SeparatorModelConfig
from avssl.models.two_tower import TwoTower


class SeparatorModel(nn.Module):
    """mixture [B, S] and the wanted sound's features [B, features] -> the one source, [B, S].

    The encoders of queries, `tagger` and `two_tower`, are parts of it so that one folder holds all; neither is called
    here. class_features: [classes, features], if the configuration says so.
    """

    tagger: Cnn14 | None
    two_tower: TwoTower | None
    class_features: Tensor | None

    def __init__(self, config: SeparatorModelConfig):
        super().__init__()
        self.config = config
        self.separator = ResUNet30(config.separator)
        self.query = QueryNet(config.query)
        self.tagger = create_tagger(config.tagger) if config.tagger else None
        self.two_tower = TwoTower(config.two_tower) if config.two_tower else None
        table = torch.zeros(config.count, config.query.features) if config.class_features else None
        self.register_buffer("class_features", table)

    def forward(self, mixture: Tensor, features: Tensor) -> Tensor:
        return self.separator(mixture, self.query(features))
