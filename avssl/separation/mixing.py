"""Make mixtures with a known answer from single segments: every segment is once the target.

Source: Kong et al., USS (arXiv 2305.07447), energy-matched mixing; the loudness range and declipping are AudioSep's
(arXiv 2308.05037).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from avssl.errors import UsageError

GAIN_LIMITS = (0.02, 50.0)  # of the interference; a nearly silent segment is not blown up to noise
ENERGY_FLOOR = 1e-10
BEND_HZ = (100.0, 300.0, 1000.0, 3000.0, 10000.0)


class Mixtures(NamedTuple):
    """mixture = target + interference, all [B, S]."""

    mixture: Tensor
    target: Tensor
    interference: Tensor


def match_energy(target: Tensor, other: Tensor) -> Tensor:
    """Gain [B, 1] that gives `other` [B, S] the energy of `target` [B, S], within GAIN_LIMITS."""
    wanted = target.square().mean(dim=-1, keepdim=True)
    present = other.square().mean(dim=-1, keepdim=True).clamp(min=ENERGY_FLOOR)
    return (wanted / present).sqrt().clamp(*GAIN_LIMITS)


def bend(segments: Tensor, rate_hz: int, deviation_db: float, generator: torch.Generator | None = None) -> Tensor:
    """Segments [B, S], each heard through a random smooth filter, as if from another microphone or instrument.

    Its gain in dB is normal with this standard deviation at each of BEND_HZ, and straight between them over the
    logarithm of the frequency. The phase stays.
    """
    samples = segments.shape[-1]
    frequency_hz = torch.fft.rfftfreq(samples, 1 / rate_hz, device=segments.device)
    edges = torch.tensor(BEND_HZ, device=segments.device).log()
    place = frequency_hz.clamp(BEND_HZ[0], BEND_HZ[-1]).log()
    right = torch.bucketize(place, edges).clamp(1, len(edges) - 1)
    share = (place - edges[right - 1]) / (edges[right] - edges[right - 1])
    drawn_db = deviation_db * torch.randn(len(segments), len(edges), generator=generator).to(segments)
    gain_db = torch.lerp(drawn_db[:, right - 1], drawn_db[:, right], share)
    return torch.fft.irfft(torch.fft.rfft(segments) * 10 ** (gain_db / 20), samples)


def mix_neighbours(
    segments: Tensor,
    sources: int = 2,
    *,
    loudness_db: tuple[float, float] | None = None,
    peak: float | None = None,
    generator: torch.Generator | None = None,
) -> Mixtures:
    """Segments [B, S] -> B mixtures; the n-th is segment n plus the `sources` - 1 segments after it, cyclically.

    Each interferer has the target's energy, times a gain drawn uniformly from `loudness_db` decibels if given. Where a
    mixture exceeds ±1 and `peak` is given (AudioSep: 0.9), mixture, target and interference are scaled down together
    to that peak. Raises UsageError for fewer segments than sources: a segment would be mixed with itself.
    """
    if sources < 2 or len(segments) < sources:
        raise UsageError(
            f"mixing {sources} sources out of a batch of {len(segments)} segments: "
            "take at least 2 sources and a batch of at least as many segments"
        )
    interference = torch.zeros_like(segments)
    for step in range(1, sources):
        other = segments.roll(-step, dims=0)
        gain = match_energy(segments, other)
        if loudness_db is not None:
            low, high = loudness_db
            drawn = torch.rand(len(segments), 1, generator=generator).to(segments)
            gain = gain * 10 ** ((low + (high - low) * drawn) / 20)
        interference = interference + gain * other
    mixture, target = segments + interference, segments
    if peak is not None:
        loudest = mixture.abs().amax(dim=-1, keepdim=True)
        scale = torch.where(loudest > 1, peak / loudest, torch.ones_like(loudest))
        mixture, target, interference = mixture * scale, target * scale, interference * scale
    return Mixtures(mixture, target, interference)
