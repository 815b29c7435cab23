"""The taggers of PANNs: Cnn14, which names what a clip holds, and its frame-wise sibling, which also says when.

Source: Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern Recognition" (arXiv
1912.10211). Parameter names are those of the published checkpoints; the window and the mel filters, which those store,
are derived here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.errors import UsageError
from avssl.models.front_ends import mel_filters
from avssl.models.separation_config import TaggerConfig
from avssl.models.sound_config import TaggerModelConfig
from avssl.models.spec_augment import spec_augment
from avssl.models.stft import Stft, power

STRIPE = 64 / 1001  # of the clip: SpecAugment's widest stripe in time, 64 frames of 10 s as published


class Tags(NamedTuple):
    """What a tagger says of clips.

    logits: [B, classes]; their sigmoid is the probability that the class is heard anywhere in the clip.
    embedding: [B, embedding_dim], not negative. frame_logits: [B, T, classes] at every hop, from the frame kind only.
    """

    logits: Tensor
    embedding: Tensor
    frame_logits: Tensor | None = None

    @property
    def probabilities(self) -> Tensor:
        return self.logits.sigmoid()

    @property
    def frame_probabilities(self) -> Tensor | None:
        """[B, T, classes]; frame t is centred on sample t * hop."""
        return None if self.frame_logits is None else self.frame_logits.sigmoid()


class LogMelDecibels(nn.Module):
    """[B, S] -> [B, T, bands]: Slaney mel bands of the power spectrum in dB, at least -100."""

    filters: Tensor

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.stft = Stft(config.fft, config.hop)
        filters = mel_filters(config.rate_hz, config.fft, config.bands, config.low_hz, config.high_hz)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = self.stft(waveform)
        with torch.autocast(waveform.device.type, enabled=False):
            return 10 * (power(spectrum) @ self.filters.float()).clamp(min=1e-10).log10()


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU, then the mean over `pool` x `pool` cells."""

    def __init__(self, in_channels: int, channels: int, pool: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        x = F.relu_(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool)


class Cnn14(nn.Module):
    """Waveforms [B, S] at `config.rate_hz` -> `Tags`. Pools over time, then decides (`config.decision` "clip").

    In training mode stripes of the spectrogram are blanked and activations dropped.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.config = config
        self.log_mel = LogMelDecibels(config)
        self.bn0 = nn.BatchNorm2d(config.bands)
        widths = [1, *config.channels]
        for number, channels in enumerate(config.channels, start=1):
            pool = 2 if number < len(config.channels) else 1
            self.add_module(f"conv_block{number}", ConvBlock(widths[number - 1], channels, pool))
        self.fc1 = nn.Linear(config.embedding_dim, config.embedding_dim)
        self.fc_audioset = nn.Linear(config.embedding_dim, config.classes)
        self.apply(_initialise)

    def forward(self, waveform: Tensor) -> Tags:
        """Raises UsageError for less sound than one time step of the last block."""
        steps = self.steps(waveform)
        embedding = self._embed(steps.amax(dim=1) + steps.mean(dim=1))
        return Tags(self.fc_audioset(embedding), self._drop(embedding))

    def steps(self, waveform: Tensor) -> Tensor:
        """[B, S] -> [B, T // step_frames, embedding_dim], before any decision."""
        x = self.log_mel(waveform)
        if x.shape[1] < self.config.step_frames:
            raise UsageError(
                f"tagger: {waveform.shape[-1]} samples are less than one time step; "
                f"pad to {(self.config.step_frames - 1) * self.config.hop}"
            )
        x = self.bn0(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        if self.training:
            x = spec_augment(x, time_width=max(1, round(STRIPE * x.shape[1])))
        x = x[:, None]
        for block in self.children():
            if isinstance(block, ConvBlock):
                x = self._drop(block(x), 0.2)
        return x.mean(dim=3).transpose(1, 2)

    def _embed(self, x: Tensor) -> Tensor:
        return F.relu(self.fc1(self._drop(x)))

    def _drop(self, x: Tensor, share: float = 0.5) -> Tensor:
        return F.dropout(x, share * self.config.dropout, self.training)


class Cnn14DecisionLevelMax(Cnn14):
    """Decides at every time step and takes the largest over time (`config.decision` "frame").

    One decision covers `config.step_frames` hops (0.32 s); the frames after the last full step repeat it.
    """

    def forward(self, waveform: Tensor) -> Tags:
        x = self.steps(waveform).transpose(1, 2)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        embedding = self._embed(x.transpose(1, 2))
        steps = self.fc_audioset(self._drop(embedding))
        frames = 1 + waveform.shape[-1] // self.config.hop
        step = torch.arange(frames, device=steps.device) // self.config.step_frames
        return Tags(steps.amax(dim=1), embedding.amax(dim=1), steps[:, step.clamp(max=steps.shape[1] - 1)])


def create_tagger(config: TaggerConfig) -> Cnn14:
    return (Cnn14 if config.decision == "clip" else Cnn14DecisionLevelMax)(config)


def tagger_of(config: TaggerModelConfig) -> Cnn14:
    """The network of a tagger's model folder."""
    return create_tagger(config.tagger)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
