"""The model that is trained: a video tower, an audio tower with its front end, and, mostly, a head for each."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from avssl.errors import ConfigError, ModelError
from avssl.models.aligner import Aligner
from avssl.models.config import HeadConfig, ModelConfig
from avssl.models.front_ends import FrontEnd, create_front_end
from avssl.models.heads import ProjectionHead
from avssl.models.registry import create_tower
from avssl.models.tower import Tower

M = TypeVar("M", bound=nn.Module)


class TwoTower(nn.Module):
    """Embeds clips and sounds into one space. Either tower may be absent (its attributes are None).

    Parameters start as PyTorch's defaults or from the files that `config` names.
    """

    video_tower: Tower | None
    audio_tower: Tower | None
    video_head: nn.Module | None  # without heads in the configuration, the identity
    audio_head: nn.Module | None
    front_end: FrontEnd | None
    aligner: Aligner | None  # on the towers' features, whatever the heads are

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.video is None and config.audio is None:
            raise ConfigError("model: has neither `video` nor `audio`; name at least one tower")
        self.config = config
        self.video_tower = self.video_head = self.audio_tower = self.audio_head = self.front_end = None
        if config.video:
            self.video_tower = create_tower(
                "video", config.video.name, weights=config.video.weights, **config.video.kwargs
            )
            self.video_head = _head(config.head, self.video_tower)
        if config.audio and config.audio_input:
            if "in_channels" in config.audio.kwargs:
                raise ConfigError("model.audio.kwargs.in_channels: set model.audio_input.channels instead")
            self.front_end = create_front_end(config.audio_input)
            self.audio_tower = create_tower(
                "audio",
                config.audio.name,
                weights=config.audio.weights,
                in_channels=config.audio_input.channels,
                **config.audio.kwargs,
            )
            self.audio_head = _head(config.head, self.audio_tower)
        widths = {tower.feature_dim for tower in (self.video_tower, self.audio_tower) if tower}
        self.aligner = None
        if config.alignment:
            if len(widths) > 1 or not (self.video_tower and self.audio_tower):
                raise ConfigError("model.alignment: needs a video and an audio tower with features of one length")
            self.aligner = Aligner(min(widths), config.alignment)

    @property
    def dim(self) -> int:
        """Length of an embedding. Raises ConfigError if the modalities have embeddings of their own lengths."""
        if self.config.head:
            return self.config.head.dim
        widths = {tower.feature_dim for tower in (self.video_tower, self.audio_tower) if tower}
        if len(widths) > 1:
            raise ConfigError(f"model.head is null, but the towers' features differ in length {sorted(widths)}; set it")
        return min(widths)

    def forward(self, video: Tensor | None = None, audio: Tensor | None = None) -> dict[str, Tensor]:
        """Embeddings [B, dim], not normalised, of what is given.

        video: [B, 3, T, H, W] normalised pixels. audio: waveforms [B, C, S] at the model's rate.
        """
        embeddings = {}
        if video is not None:
            embeddings["video"] = _present(self.video_head, "video")(self.video_features(video))
        if audio is not None:
            embeddings["audio"] = _present(self.audio_head, "audio")(self.audio_features(audio))
        return embeddings

    def video_features(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] normalised pixels -> [B, feature_dim], before the head."""
        return _present(self.video_tower, "video")(video)

    def audio_features(self, audio: Tensor) -> Tensor:
        """Waveforms [B, C, S] -> [B, feature_dim], before the head."""
        return _present(self.audio_tower, "audio")(self.spectrogram(audio))

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Waveforms [B, C, S] -> the audio tower's input [B, C, time, frequency], float32."""
        return _present(self.front_end, "audio")(audio)


def _head(config: HeadConfig | None, tower: Tower) -> nn.Module:
    return ProjectionHead(tower.feature_dim, config.hidden, config.dim) if config else nn.Identity()


def _present(module: M | None, modality: str) -> M:
    if module is None:
        raise ModelError(f"this model has no {modality} tower; use one whose config.json names `model.{modality}`")
    return module
