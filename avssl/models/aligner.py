"""What AVSA puts on top of two towers: it predicts each view's sound from what all views show, and the reverse."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from avssl.errors import ModelError
from avssl.models.config import AlignmentConfig
from avssl.models.heads import ProjectionHead
from avssl.models.viewpoint_transformer import ViewpointTransformer

Modality = Literal["video", "audio"]
OTHER: dict[Modality, Modality] = {"video": "audio", "audio": "video"}


class Aligner(nn.Module):
    """Two transformers over features [B, K, width] of the K views of a sample, and linear heads to where predictions
    and features are compared [B, K, config.dim] (by their cosine). Parameter names are those of the published criterion
    (methods D.3).

    `config.depth` null leaves only the two heads of the features, which AVC compares directly; 0 predicts without
    transformers, by the heads alone.
    """

    def __init__(self, width: int, config: AlignmentConfig):
        super().__init__()
        self.config = config
        self.video_head, self.audio_head = (ProjectionHead(width, [], config.dim) for _ in range(2))
        if config.depth is not None:
            self.v2a_transformer, self.a2v_transformer = (ViewpointTransformer(width, config) for _ in range(2))
            self.video_pred_head, self.audio_pred_head = (ProjectionHead(width, [], config.dim) for _ in range(2))

    def predict(self, modality: Modality, features: Tensor) -> Tensor:
        """The features [B, K, width] of `modality`, predicted from those of the other one.

        Raises ModelError if the model has nothing to predict with (`depth: null`).
        """
        if self.config.depth is None:
            raise ModelError("this model predicts nothing (model.alignment.depth is null); use one trained with AVSA")
        return self.a2v_transformer(features) if modality == "video" else self.v2a_transformer(features)

    def project(self, modality: Modality, features: Tensor) -> Tensor:
        """Features of the tower [..., width] -> [..., dim]."""
        return self.video_head(features) if modality == "video" else self.audio_head(features)

    def project_prediction(self, modality: Modality, predicted: Tensor) -> Tensor:
        """What `predict` gave for `modality` [..., width] -> [..., dim]."""
        return self.video_pred_head(predicted) if modality == "video" else self.audio_pred_head(predicted)

    def reset(self) -> None:
        """New random parameters for all of it, in place."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.reset_parameters()
