"""The project's networks in textbook PyTorch: what `train_step.py` measures against.

The 3D convolutions as `nn.Conv3d`, plain memory layout, ReLU out of place, one library call for each step of the
spectrogram. Parameters have the names and shapes of `avssl.models`, so either side can start from the other's weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.models.config import AudioInput, ModelConfig
from avssl.models.front_ends import create_front_end, mel_filters


def space(in_channels: int, channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)


def time(channels: int, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)


def shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
    return nn.Conv3d(in_channels, channels, 1, stride, bias=False) if stride > 1 else nn.Identity()


class VideoBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.spt_conv1, self.spt_bn1 = space(in_channels, channels, stride), nn.BatchNorm3d(channels)
        self.tmp_conv1, self.tmp_bn1 = time(channels, stride), nn.BatchNorm3d(channels)
        self.spt_conv2, self.spt_bn2 = space(channels, channels), nn.BatchNorm3d(channels)
        self.tmp_conv2, self.out_bn = time(channels), nn.BatchNorm3d(channels)
        self.res_conv = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.spt_bn1(self.spt_conv1(x)))
        y = F.relu(self.tmp_bn1(self.tmp_conv1(y)))
        y = F.relu(self.spt_bn2(self.spt_conv2(y)))
        return F.relu(self.out_bn(self.tmp_conv2(y) + self.res_conv(x)))


class R2Plus1D18(nn.Module):
    """`avid_r2plus1d_18`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.conv2x = nn.Sequential(VideoBlock(64, 64, 1), VideoBlock(64, 64, 1))
        self.conv3x = nn.Sequential(VideoBlock(64, 128, 2), VideoBlock(128, 128, 1))
        self.conv4x = nn.Sequential(VideoBlock(128, 256, 2), VideoBlock(256, 256, 1))
        self.conv5x = nn.Sequential(VideoBlock(256, 512, 2), VideoBlock(512, 512, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5x(self.conv4x(self.conv3x(self.conv2x(self.conv1(x)))))
        return F.adaptive_max_pool3d(x, 1).flatten(1)


class AudioBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class AudioCNN9(nn.Module):
    """`avid_audio_cnn9`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.block1 = AudioBlock(64, 64, 2)
        self.block2 = AudioBlock(64, 128, 2)
        self.block3 = AudioBlock(128, 256, 2)
        self.block4 = AudioBlock(256, 512, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block4(self.block3(self.block2(self.block1(self.conv1(x)))))
        return F.adaptive_max_pool2d(x, 1).flatten(1)


class TinyVideoBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.space, self.space_bn = space(in_channels, channels, stride), nn.BatchNorm3d(channels)
        self.time, self.time_bn = time(channels, stride), nn.BatchNorm3d(channels)
        self.shortcut = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.space_bn(self.space(x)))
        return F.relu(self.time_bn(self.time(y)) + self.shortcut(x))


class TinyVideo(nn.Module):
    """`tiny_video`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv3d(3, 32, (1, 7, 7), (1, 4, 4), (0, 3, 3), bias=False), nn.BatchNorm3d(32), nn.ReLU()
        )
        self.conv2x = TinyVideoBlock(32, 32, 1)
        self.conv3x = TinyVideoBlock(32, 64, 2)
        self.conv4x = TinyVideoBlock(64, 128, 2)
        self.conv5x = TinyVideoBlock(128, 256, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv5x(self.conv4x(self.conv3x(self.conv2x(self.conv1(x)))))
        return F.adaptive_avg_pool3d(x, 1).flatten(1)


class Frequency(nn.Module):
    """One more channel, from -1 to 1 along frequency."""

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)
        return torch.cat([x, ramp.expand_as(x[:, :1])], dim=1)


def layers(in_channels: int, channels: int, size: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, channels, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]


class TinyAudio(nn.Module):
    """`tiny_audio`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(Frequency(), *layers(2, 32, 5, 2))
        self.block1 = nn.Sequential(*layers(32, 64, 3, 2))
        self.block2 = nn.Sequential(*layers(64, 128, 3, 2))
        self.block3 = nn.Sequential(*layers(128, 256, 3, 2))
        self.block4 = nn.Sequential(*layers(256, 256, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block4(self.block3(self.block2(self.block1(self.conv1(x)))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


class Spectrogram(nn.Module):
    """Normalised decibels [B, C, time, frequency] of waveforms [B, C, S]."""

    mean: Tensor
    std: Tensor
    filters: Tensor
    window: Tensor

    def __init__(self, audio: AudioInput):
        super().__init__()
        end = create_front_end(audio)  # only for its settings and statistics
        self.fft, self.hop, self.range_db, self.kind = end.fft, end.hop, end.range_db, audio.front_end.name
        self.exponent = getattr(end, "exponent", 2.0)
        self.register_buffer("mean", end.mean)
        self.register_buffer("std", end.std)
        filters = mel_filters(audio.rate_hz, end.fft, end.features, 0.0, audio.rate_hz / 2)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(end.fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        stft = torch.stft(
            waveform.flatten(0, 1), self.fft, self.hop, window=self.window, pad_mode="constant", return_complex=True
        )
        power = stft.abs()[..., : waveform.shape[-1] // self.hop].pow(2).transpose(1, 2)
        power = power.unflatten(0, waveform.shape[:2])
        if self.kind == "log_mel":
            power = power.pow(self.exponent / 2) @ self.filters
        else:
            pairs = (power[..., 1::2] + power[..., 2::2]) / 2
            power = torch.cat([power[..., :1], pairs], dim=-1)
        decibels = 10 * torch.log10(power.clamp(min=1e-10))
        loudest = decibels.amax(dim=(-2, -1), keepdim=True)
        return (torch.maximum(decibels, loudest - self.range_db) - self.mean) / (self.std + 1e-5)


class Head(nn.Module):
    def __init__(self, in_dim: int, hidden: list[int], dim: int):
        super().__init__()
        widths = [in_dim, *hidden]
        parts: list[nn.Module] = []
        for width_in, width_out in zip(widths, hidden, strict=False):
            parts += [nn.Linear(width_in, width_out), nn.ReLU()]
        self.projection = nn.Sequential(*parts, nn.Linear(widths[-1], dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)


TOWERS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and the length of what they give
    "avid_r2plus1d_18": (R2Plus1D18, 512),
    "avid_audio_cnn9": (AudioCNN9, 512),
    "tiny_video": (TinyVideo, 256),
    "tiny_audio": (TinyAudio, 256),
}


class PlainTwoTower(nn.Module):
    """Takes the state dict of `avssl.models.two_tower.TwoTower` of the same config."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        assert config.video and config.audio and config.audio_input and config.head
        make_video, video_dim = TOWERS[config.video.name]
        make_audio, audio_dim = TOWERS[config.audio.name]
        self.video_tower, self.audio_tower = make_video(), make_audio()
        self.video_head = Head(video_dim, config.head.hidden, config.head.dim)
        self.audio_head = Head(audio_dim, config.head.hidden, config.head.dim)
        self.front_end = Spectrogram(config.audio_input)

    def forward(self, video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [B, D] of both."""
        seen = self.video_head(self.video_tower(video))
        heard = self.audio_head(self.audio_tower(self.front_end(audio)))
        return F.normalize(seen, dim=1), F.normalize(heard, dim=1)
