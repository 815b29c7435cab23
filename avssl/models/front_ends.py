"""From waveforms to z-normalised log spectrograms, in batch, on the device, in float32 also under autocast.

A front end maps [B, C, S] to [B, C, S // hop, features] and treats every channel alike and alone (the levels of
ambisonic channels carry direction, so they are never normalised to each other). The short-time transform is our own
torch code: frames centred on multiples of the hop, zeros beyond the ends, periodic Hann window.
"""

from __future__ import annotations

import inspect
import json
import math
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl.config import nearest
from avssl.errors import ConfigError, UsageError
from avssl.models.config import AudioInput
from avssl.spatial.ambisonics import project

_FLOOR = 1e-10  # the least power (or magnitude) that is told from silence: -100 dB


class FrontEnd(nn.Module):
    """The common part: spectrum, decibels, normalisation by fixed statistics.

    fft, hop: samples. range_db: what lies further below the loudest cell of its channel is lifted to that level.
    mean_db, std_db: statistics of the data, one number or one per feature; buffers, so they are saved with the weights.
    """

    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, features: int, fft: int, hop: int, range_db: float, mean_db: Any, std_db: Any):
        super().__init__()
        self.features, self.fft, self.hop, self.range_db = features, fft, hop, range_db
        self.register_buffer("window", torch.hann_window(fft), persistent=False)
        self.register_buffer("mean", _per_feature(mean_db, features, "mean"))
        self.register_buffer("std", _per_feature(std_db, features, "std"))

    @abstractmethod
    def levels(self, power: Tensor) -> Tensor:
        """[…, fft // 2 + 1] power spectrum -> […, features], the positive quantity whose decibels are taken."""

    def decibels(self, waveform: Tensor) -> Tensor:
        """[B, C, S] -> [B, C, S // hop, features] in dB, before normalisation. Silence is -100 dB."""
        with torch.autocast(waveform.device.type, enabled=False):
            levels = self.levels(self._power(waveform.float()))
            decibels = 10 * levels.clamp(min=_FLOOR).log10()
            loudest = decibels.amax(dim=(-2, -1), keepdim=True)
            return decibels.maximum(loudest - self.range_db)

    def forward(self, waveform: Tensor) -> Tensor:
        """[B, C, S] -> [B, C, S // hop, features], float32, about zero mean and unit variance.

        Raises UsageError if S is less than one hop.
        """
        return (self.decibels(waveform) - self.mean.float()) / (self.std.float() + 1e-5)

    def _power(self, x: Tensor) -> Tensor:
        if x.shape[-1] < self.hop:
            raise UsageError(
                f"front end: a waveform of {x.shape[-1]} samples is shorter than one hop of {self.hop}; pad it"
            )
        frames = F.pad(x, (self.fft // 2, self.fft // 2)).unfold(-1, self.fft, self.hop)
        spectrum = torch.fft.rfft(frames[..., : x.shape[-1] // self.hop, :] * self.window.float())
        return spectrum.real.square() + spectrum.imag.square()


class AvidSpectrogram(FrontEnd):
    """AVID's linear-frequency log power spectrogram: bin 0, then the mean of adjacent pairs of bins.

    At 24 kHz with the defaults, 2 s give [200, 257]. The default statistics are averages over frequency of the
    published ones; public checkpoints need their own vectors (`stats_file`).
    """

    def __init__(
        self,
        rate_hz: int,
        *,
        fft: int = 1024,
        hop: int = 240,
        range_db: float = 100.0,
        mean_db: Any = -28.5,
        std_db: Any = 19.7,
    ):
        super().__init__(fft // 4 + 1, fft, hop, range_db, mean_db, std_db)

    def levels(self, power: Tensor) -> Tensor:
        pairs = power[..., 1:].unflatten(-1, (-1, 2)).mean(dim=-1)
        return torch.cat([power[..., :1], pairs], dim=-1)


class LogMel(FrontEnd):
    """Log mel spectrogram on Slaney's mel scale, filters of equal area (librosa's default bank).

    exponent: 1 takes filter-bank sums of magnitudes (AVSA), 2 of power. With the defaults, AVSA's: 1 s at 24 kHz gives
    [100, 128] a channel; the default statistics are averages over frequency of the published ones.
    """

    filters: Tensor

    def __init__(
        self,
        rate_hz: int,
        *,
        fft: int = 512,
        hop: int = 240,
        bands: int = 128,
        low_hz: float = 0.0,
        high_hz: float | None = None,
        exponent: float = 1.0,
        range_db: float = 100.0,
        mean_db: Any = -34.9,
        std_db: Any = 23.7,
    ):
        super().__init__(bands, fft, hop, range_db, mean_db, std_db)
        self.exponent = exponent
        filters = mel_filters(rate_hz, fft, bands, low_hz, rate_hz / 2 if high_hz is None else high_hz)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def levels(self, power: Tensor) -> Tensor:
        return power.pow(self.exponent / 2) @ self.filters.float()


_TURN, _BACK = 2 * math.pi / 3, 8**0.5 / 3  # between the three beams to the back, and their distance from the axis
BEAMS = torch.tensor(  # directions (see `avssl.spatial.directions`): ahead, and three around the back
    [[1.0, 0.0, 0.0], *([-1 / 3, _BACK * math.sin(turn), _BACK * math.cos(turn)] for turn in (0.0, _TURN, -_TURN))]
)


class BeamMel(LogMel):
    """`LogMel` of four beams in place of a view's W, Y, Z, X: cardioids toward the corners of a tetrahedron. Our own.

    A source and one in the opposite direction differ in the signs of Y, Z and X alone, which magnitudes do not keep.
    The beams are the same four channels in another basis, and their magnitudes tell all directions apart.
    """

    def decibels(self, waveform: Tensor) -> Tensor:
        """[B, 4, S] -> [B, 4, S // hop, bands] in dB. Raises UsageError for other than four channels."""
        if waveform.shape[-2] != 4:
            raise UsageError(
                f"front end beam_mel: takes the four channels of `hearing: ambisonics`, got {waveform.shape[-2]}"
            )
        return super().decibels(project(waveform.float(), BEAMS.to(waveform.device)))


class EffectsMel(FrontEnd):
    """aiSFX's mel spectrogram: log10(1 + 10^4 power) on the HTK mel scale, each filter's weights summing to one.

    Its decibels are those of 1 + 10^4 power: silence is 0. With the defaults 102,400 samples at 44.1 kHz give
    [100, 96]; the default statistics are the published smallest and largest value, which map to 0 and 1.
    """

    filters: Tensor

    def __init__(
        self,
        rate_hz: int,
        *,
        fft: int = 2048,
        hop: int = 1024,
        bands: int = 96,
        mean_db: Any = 0.0,
        std_db: Any = 94.57798957824707,
    ):
        super().__init__(bands, fft, hop, float("inf"), mean_db, std_db)
        filters = htk_filters(rate_hz, fft, bands)
        self.register_buffer("filters", torch.from_numpy(filters).float(), persistent=False)

    def levels(self, power: Tensor) -> Tensor:
        return 1 + 1e4 * (power @ self.filters.float())


FRONT_ENDS: dict[str, Callable[..., FrontEnd]] = {
    "avid_spectrogram": AvidSpectrogram,
    "beam_mel": BeamMel,
    "effects_mel": EffectsMel,
    "log_mel": LogMel,
}


def create_front_end(audio: AudioInput) -> FrontEnd:
    """The front end that `audio.front_end` describes. Raises ConfigError for an unknown name or bad statistics."""
    config = audio.front_end
    if config.name not in FRONT_ENDS:
        raise ConfigError(f"there is no front end {config.name!r}; {nearest(config.name, FRONT_ENDS)}")
    kind = FRONT_ENDS[config.name]
    valid = [name for name in inspect.signature(kind).parameters if name != "rate_hz"]
    for key in config.kwargs:
        if key not in valid:
            raise ConfigError(f"front end {config.name!r} takes no argument {key!r}; {nearest(key, valid)}")
    statistics = read_statistics(config.stats_file) if config.stats_file else {}
    return kind(audio.rate_hz, **{**config.kwargs, **statistics})


def read_statistics(path: str) -> dict[str, list[float]]:
    """`mean_db` and `std_db`, per feature, from an .npz or .json file with the entries `mean` and `std`."""
    try:
        if Path(path).suffix == ".json":
            content = json.loads(Path(path).read_text())
        else:
            with np.load(path, allow_pickle=False) as arrays:
                content = {key: arrays[key] for key in ("mean", "std")}
        return {f"{key}_db": np.asarray(content[key], np.float64).reshape(-1).tolist() for key in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"stats_file {path}: cannot be read ({error}); give an .npz or .json file with `mean` and `std`"
        ) from error


def mel_filters(rate_hz: int, fft: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Slaney's triangular filters [fft // 2 + 1, bands], each of the area that makes its response independent of width.

    The scale is linear below 1 kHz (3 mel per 200 Hz) and logarithmic above (27 steps per factor 6.4).
    """
    edges_hz = _mel_to_hz(np.linspace(_hz_to_mel(low_hz), _hz_to_mel(high_hz), bands + 2))
    bins_hz = np.arange(fft // 2 + 1)[:, None] * (rate_hz / fft)
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)).clip(min=0)
    return triangles * (2 / (high - low))


def htk_filters(rate_hz: int, fft: int, bands: int) -> np.ndarray:
    """Filters [fft // 2 + 1, bands] over all frequencies: `htk_triangles` whose weights sum to 1."""
    triangles = htk_triangles(rate_hz, fft, bands, 0.0, rate_hz / 2)
    return triangles / triangles.sum(0)


def htk_triangles(rate_hz: int, fft: int, bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """[fft // 2 + 1, bands], triangles of height 1 over 2595 log10(1 + f / 700) mel."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 2595 * np.log10(1 + np.asarray(hz) / 700)

    bins = mel(np.arange(fft // 2 + 1) * (rate_hz / fft))[:, None]
    edges = np.linspace(mel(low_hz), mel(high_hz), bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    return np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(min=0)


_LOG_STEP = np.log(6.4) / 27  # above 1 kHz, which is 15 mel


def _hz_to_mel(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + float(np.log(hz / 1000)) / _LOG_STEP


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * _LOG_STEP))


def _per_feature(value: Any, features: int, name: str) -> Tensor:
    vector = torch.as_tensor(value, dtype=torch.float32)
    if vector.numel() not in (1, features) or not vector.isfinite().all() or (name == "std" and (vector <= 0).any()):
        raise ConfigError(
            f"front end: {name} must be one finite number or {features} of them"
            f"{', positive' if name == 'std' else ''}; got {vector.numel()} values"
        )
    return vector.expand(features).clone()
