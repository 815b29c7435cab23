"""360° scenes kept in memory, from which any view can be seen and heard without going back to a waveform.

The product's front end takes the power of each channel in mel bands. A view's channels are weighted sums of W, Y, Z, X,
so their powers are quadratic forms of ten numbers: the power of the four channels and of their six products, in each
band and column. These are computed once; then a view, a turn of the scene, or a beam is a small matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avssl.models.front_ends import mel_filters

FPS = 4.0
FRAMES = 2  # of a look: half a second of pictures,
HEARD_FRAMES = 4  # and a second of sound, whose middle they are
RATE_HZ = 16_000
COLUMNS_A_FRAME = 5  # of the spectrogram: 50 ms each
BANDS = 40
SIDE_PX = 32  # of a view
FFT = 1024
RANGE_DB = 80.0
HOP = round(RATE_HZ / FPS / COLUMNS_A_FRAME)
PAIRS = [(i, j) for i in range(4) for j in range(i, 4)]  # of channels, as the last dimension of `Scenes.power`


class Level(NamedTuple):
    """Mean and standard deviation of spectrograms in dB, by which they are normalised."""

    mean_db: float
    std_db: float

    @classmethod
    def of(cls, power: np.ndarray) -> Level:
        """That of the omnidirectional channel W."""
        decibels = 10 * np.log10(power[..., 0].clip(1e-10))
        return cls(float(decibels.mean()), float(decibels.std()))


@dataclass(frozen=True)
class Scenes:
    """N scenes: pictures [N, T, H, W, 3] uint8 at FPS, and what `power` gives of their sounds."""

    video: np.ndarray
    power: np.ndarray  # [N, T * COLUMNS_A_FRAME, BANDS, 10] float32
    level: Level

    def __len__(self) -> int:
        return len(self.video)

    def part(self, scenes: slice) -> Scenes:
        """These of them."""
        return Scenes(self.video[scenes], self.power[scenes], self.level)


def power(sound: np.ndarray) -> np.ndarray:
    """Powers and products of ambiX channels [4, S] at RATE_HZ in mel bands: [S // HOP, BANDS, 10] float32.

    Frames and filters are those of the front end `log_mel` with exponent 2.
    """
    padded = np.pad(sound, ((0, 0), (FFT // 2, FFT // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT, axis=1)[:, ::HOP][:, : sound.shape[1] // HOP]
    spectrum = np.fft.rfft(frames * np.hanning(FFT + 1)[:-1])
    filters = mel_filters(RATE_HZ, FFT, BANDS, 0.0, RATE_HZ / 2)
    return np.stack([(spectrum[i] * spectrum[j].conj()).real @ filters for i, j in PAIRS], -1).astype(np.float32)


def decibels(power: Tensor, channels: Tensor) -> Tensor:
    """Log mel spectrograms [B, C, T, BANDS] in dB of channels that are sums of W, Y, Z, X with the weights `channels`
    [B, C, 4], from powers [B, T, BANDS, 10]. What lies RANGE_DB below a channel's loudest is lifted to there."""
    weights = torch.stack([(1 if i == j else 2) * channels[..., i] * channels[..., j] for i, j in PAIRS], -1)
    levels = torch.einsum("btfp,bcp->bctf", power, weights)
    found = 10 * levels.clamp(min=1e-10).log10()
    return found.maximum(found.amax((-2, -1), keepdim=True) - RANGE_DB)
