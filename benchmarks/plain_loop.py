"""The training step that a script would have: float pictures clip by clip, memory-bank NCE in plain words, Adam.

Same network, batch, draws and start as `avssl-train`, so the same loss; nothing of its speed. Precision is float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl import rng
from avssl.models.config import ModelConfig, VideoInput
from avssl.tasks.base import Batch
from benchmarks.plain_networks import PlainTwoTower


class PlainLoop:
    """AVID with a memory bank.

    Args:
        state: model weights at the start. banks: of video and audio, [N, D] each, at the start.
        negatives, temperature, momentum: of the objective. lr, weight_decay: of Adam. seed: of the run.
    """

    def __init__(
        self,
        config: ModelConfig,
        state: dict[str, Tensor],
        banks: tuple[Tensor, Tensor],
        *,
        negatives: int,
        temperature: float,
        momentum: float,
        lr: float,
        weight_decay: float,
        seed: int,
        device: str = "cpu",
    ):
        self.model = PlainTwoTower(config).to(device)
        self.model.load_state_dict(state)
        self.model.train()
        self.device = device
        assert config.video_input
        self.picture = config.video_input
        self.banks = [bank.to(device, copy=True) for bank in banks]
        self.negatives, self.temperature, self.momentum, self.seed = negatives, temperature, momentum, seed
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr, weight_decay=weight_decay)
        self.partition: Tensor | None = None

    def step(self, batch: Batch, number: int) -> float:
        """The `number`-th step, from 1; returns its loss."""
        rows = batch["row"]
        pictures, sound = prepared(batch, self.picture)
        video, audio = self.model(pictures.to(self.device), sound.to(self.device))
        total = len(self.banks[0])
        generator = torch.Generator().manual_seed(rng.step_seed(self.seed, number))
        others = torch.randint(total - 1, (len(rows), self.negatives), generator=generator)
        others = others + (others >= rows[:, None])
        columns, rows = torch.cat([rows[:, None], others], dim=1).to(self.device), rows.to(self.device)
        video_scores = (video[:, None] * self.banks[1][columns]).sum(-1) / self.temperature
        audio_scores = (audio[:, None] * self.banks[0][columns]).sum(-1) / self.temperature
        if self.partition is None:
            self.partition = video_scores[:, 1:].detach().exp().mean()
        loss = (self.nce(video_scores) + self.nce(audio_scores)) / 2
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        for embedding, bank in zip((video, audio), self.banks, strict=True):
            moved = self.momentum * bank[rows] + (1 - self.momentum) * embedding.detach()
            bank[rows] = F.normalize(moved, dim=1)
        return loss.item()

    def nce(self, scores: Tensor) -> Tensor:
        """Each candidate is the partner (the first) or noise; the chance that it is no noise is p / (p + K)."""
        assert self.partition is not None
        p = scores.exp() / self.partition
        real = p[:, 0] / (p[:, 0] + self.negatives)
        noise = self.negatives / (p[:, 1:] + self.negatives)
        return -(real.log() + noise.log().sum(1)).mean()


def prepared(batch: Batch, picture: VideoInput) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, T, H, W] and waveforms [B, C, S] of a batch with one clip a sample."""
    clips = []
    for number, video in enumerate(batch["video"][:, 0]):
        frames = video.permute(0, 3, 1, 2).float() / 255
        top, left, height, width = batch["crop_px"][number, 0].tolist()
        frames = frames[:, :, top : top + height, left : left + width]
        size = (picture.size_px, picture.size_px)
        frames = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
        if batch["flip"][number, 0]:
            frames = frames.flip(3)
        factors = batch["jitter"][number, 0].tolist()
        for which in batch["jitter_order"][number, 0].tolist():
            frames = CHANGES[which](frames, factors[which])
        clips.append(normalised(frames, picture).transpose(0, 1))
    return torch.stack(clips), batch["audio"][:, 0] * batch["gain"][:, :1, None]


def normalised(frames: Tensor, picture: VideoInput) -> Tensor:
    mean, std = torch.tensor(picture.mean), torch.tensor(picture.std)
    return (frames - mean[:, None, None]) / std[:, None, None]


def grey(frames: Tensor) -> Tensor:
    red, green, blue = frames.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def blended(frames: Tensor, other: Tensor, factor: float) -> Tensor:
    return (factor * frames + (1 - factor) * other).clamp(0, 1)


def brightness(frames: Tensor, factor: float) -> Tensor:
    return (frames * factor).clamp(0, 1)


def contrast(frames: Tensor, factor: float) -> Tensor:
    return blended(frames, grey(frames).mean(dim=(1, 2, 3), keepdim=True), factor)


def saturation(frames: Tensor, factor: float) -> Tensor:
    return blended(frames, grey(frames), factor)


def hue(frames: Tensor, shift: float) -> Tensor:
    """RGB to HSV, the hue turned, and back, by the six sectors of the colour circle."""
    red, green, blue = frames.unbind(1)
    value, low = frames.amax(1), frames.amin(1)
    chroma = value - low
    divisor = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    angle = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    angle = (angle / 6 + shift) % 1 * 6
    saturation = torch.where(value == 0, torch.zeros_like(value), chroma / torch.where(value == 0, divisor, value))
    sector = angle.floor()
    rest = angle - sector
    p, q = value * (1 - saturation), value * (1 - saturation * rest)
    t = value * (1 - saturation * (1 - rest))
    sectors = [(value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q)]
    pictures = torch.stack([torch.stack(colours, dim=1) for colours in sectors])
    which = (sector.long() % 6)[None, :, None].expand(1, -1, 3, -1, -1)
    return pictures.gather(0, which).squeeze(0)


CHANGES = (brightness, contrast, saturation, hue)
