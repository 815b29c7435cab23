"""What is exported: from the pixels or the waveform of a clip to its embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl.models.config import VideoInput
from avssl.models.two_tower import TwoTower


class VideoEncoder(nn.Module):
    """uint8 RGB [B, T, size, size, 3] -> unit vectors [B, D]: normalisation, tower and head.

    Resizing and cropping stay outside: `avssl.models.av_model` has them, and export.json says them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: TwoTower, expects: VideoInput):
        super().__init__()
        self.tower, self.head = model.video_tower, model.video_head
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(expects, name))[:, None, None, None], persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        pixels = frames.permute(0, 4, 1, 2, 3).float() / 255
        return F.normalize(self.head(self.tower((pixels - self.mean) / self.std)), dim=-1)  # type: ignore[misc]


class AudioEncoder(nn.Module):
    """float32 waveforms [B, C, S] in -1..1 at the model's rate -> unit vectors [B, D]: front end, tower and head."""

    def __init__(self, model: TwoTower):
        super().__init__()
        self.front_end, self.tower, self.head = model.front_end, model.audio_tower, model.audio_head

    def forward(self, waveform: Tensor) -> Tensor:
        return F.normalize(self.head(self.tower(self.front_end(waveform))), dim=-1)  # type: ignore[misc]
