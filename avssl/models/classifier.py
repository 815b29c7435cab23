"""The network of a classifier: a two-tower model, a head for each modality in use, and perhaps adapters between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avssl.models.adapters import Adapters, stage_channels
from avssl.models.classifier_config import ClassifierConfig
from avssl.models.heads import CosineHead, LinearHead
from avssl.models.moment_head import MomentHead
from avssl.models.tower import Tower
from avssl.models.two_tower import TwoTower

Stages = dict[str, Tensor]
"""A tower's stages by name, as `Tower.feature_stages` gives them; heads need the last two at most."""


class ClassifierNet(nn.Module):
    """Normalised pixels and waveforms, as `TwoTower` takes them, to logits; the backbone's heads are not used."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        self.backbone = TwoTower(config.backbone)
        self.heads, self.adapters = nn.ModuleDict(), nn.ModuleDict()
        for modality in config.modalities:
            tower = self.tower(modality)
            channels = self._channels(modality) if config.adapter_rank or config.head == "moment" else {}
            self.heads[modality] = _head(config, tower, channels)
            if channels and config.adapter_rank:
                adapters = Adapters(channels, config.adapter_rank)
                adapters.attach(tower)
                self.adapters[modality] = adapters

    def tower(self, modality: str) -> Tower:
        """The video or audio tower, which is there for each of `config.modalities`."""
        found = self.backbone.video_tower if modality == "video" else self.backbone.audio_tower
        assert found is not None
        return found

    def forward(
        self, video: Tensor | None = None, audio: Tensor | None = None, audio_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [B, classes]: the sum over the modalities.

        video: [B, 3, T, H, W]. audio: waveforms [B, C, S]; where `audio_mask` [B] is false there is none.
        """
        parts = []
        if video is not None:
            parts.append(self.logits("video", self.tower("video").feature_stages(video)))
        if audio is not None:
            heard = self.logits("audio", self.tower("audio").feature_stages(self.backbone.spectrogram(audio)))
            parts.append(heard if audio_mask is None else heard * audio_mask[:, None])
        return torch.stack(parts).sum(0)

    def logits(self, modality: str, stages: Stages) -> Tensor:
        """[B, classes] from a tower's last stages."""
        head, names = self.heads[modality], self.tower(modality).stage_names
        pooled = stages[names[-1]]
        return head(stages[names[-2]], pooled) if isinstance(head, MomentHead) else head(pooled)

    def _channels(self, modality: str) -> dict[str, int]:
        """Of each stage's output."""
        config, tower = self.config.backbone, self.tower(modality)
        if modality == "video" and config.video_input:
            side = config.video_input.size_px
            return stage_channels(tower, torch.zeros(1, 3, config.video_input.frames, side, side))
        assert config.audio_input is not None
        sound = torch.zeros(1, config.audio_input.channels, config.audio_input.samples)
        return stage_channels(tower, self.backbone.spectrogram(sound))


def _head(config: ClassifierConfig, tower: Tower, channels: dict[str, int]) -> nn.Module:
    classes = len(config.classes)
    if config.head == "moment":
        linear = LinearHead(tower.feature_dim, classes, unit=config.unit, dropout=config.dropout)
        return MomentHead(channels[tower.stage_names[-2]], linear, classes, config.moment)
    if config.head == "cosine":
        return CosineHead(tower.feature_dim, classes)
    return LinearHead(tower.feature_dim, classes, unit=config.unit, dropout=config.dropout)
