"""A trained classifier as users meet it: frames, a waveform or a file in, probabilities of named classes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avssl.embedding.sources import Item, printable
from avssl.embedding.stream import StreamOptions, embed_item
from avssl.errors import MediaError, ModelError
from avssl.models.av_model import EMBEDDING, AVModel
from avssl.models.classifier import ClassifierNet
from avssl.models.classifier_config import ClassifierConfig

LOGITS = "logits"


class Classifier(AVModel):
    """An `AVModel` (the fine-tuned backbone, adapters included) that also names classes.

    `logits` is a further layer of each modality in use, for `encode_video`, `encode_audio` and
    `avssl-embed --layers video.logits`.
    """

    def __init__(
        self,
        network: ClassifierNet,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str = "float32",
        description: dict[str, Any] | None = None,
    ):
        super().__init__(network.backbone, device=device, dtype=dtype, description=description)
        self.network = network.eval().to(device)
        self.net = network
        self.classifier: ClassifierConfig = network.config

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the probabilities."""
        return self.classifier.classes

    @property
    def modalities(self) -> list[str]:
        """What it looks at and listens to."""
        return list(self.classifier.modalities)

    def layers(self, modality: str) -> list[str]:
        return [*super().layers(modality), *([LOGITS] if modality in self.modalities else [])]

    def classify_video(self, frames: Any) -> Tensor:
        """uint8 RGB frames [..., T, H, W, 3], as `encode_video` takes them -> probabilities [..., classes]."""
        self._check("video")
        return self.encode_video(frames, layers=[LOGITS])[LOGITS].softmax(-1)

    def classify_audio(self, waveform: Any, rate_hz: int) -> Tensor:
        """Waveform [S] or [..., C, S], as `encode_audio` takes it -> probabilities [..., classes]."""
        self._check("audio")
        return self.encode_audio(waveform, rate_hz, layers=[LOGITS])[LOGITS].softmax(-1)

    def classify_file(self, path: str | os.PathLike[str]) -> dict[str, float]:
        """The probability of each class for a media file: mean over its windows, likeliest first.

        Logits of picture and sound are added; a file that lacks one of them is judged by the other. Raises MediaError
        if it cannot be read or has neither.
        """
        options = StreamOptions(
            window_s=self.classifier.window_s,
            hop_s=self.classifier.hop_s,
            modalities=tuple(self.modalities),
            layers=tuple(f"{modality}.{LOGITS}" for modality in self.modalities),
        )
        name = printable(Path(path))
        sums = []
        try:
            for row in embed_item(self, Item(name, video=path, audio=path), options):
                logits = sum(row[layer] for layer in options.layers if layer in row)
                sums.append(torch.as_tensor(np.asarray(logits)).double().softmax(-1))
        except OSError as error:
            raise MediaError(name, "unreadable", f"cannot be read: {error.strerror or error}") from error
        mean = torch.stack(sums).mean(0).tolist()
        return dict(sorted(zip(self.classes, mean, strict=True), key=lambda pair: -pair[1]))

    def _features(self, modality: str, x: Tensor, names: list[str]) -> dict[str, Tensor]:
        if LOGITS not in names:
            return super()._features(modality, x, names)
        head = self.model.video_head if modality == "video" else self.model.audio_head
        assert head is not None
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            if modality == "audio":
                x = self.model.spectrogram(x)
            stages = self._tower(modality).feature_stages(x)
            found = {LOGITS: self.net.logits(modality, stages).float()}
            for name in names:
                if name == EMBEDDING:
                    found[name] = F.normalize(head(stages["pool"]).float(), dim=-1)
                elif name != LOGITS:
                    value = stages[name].float()
                    found[name] = value.flatten(2).mean(2) if value.ndim > 2 else value
        return found

    def _check(self, modality: str) -> None:
        if modality not in self.modalities:
            raise ModelError(
                f"this classifier does not use {modality}; it was made for {' and '.join(self.modalities)}"
            )
