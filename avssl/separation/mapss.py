"""How far sources are separated and how well each is kept, by ear-like distances: the measures PS and PM of MAPSS.

Source: Ivry, Cornell, Watanabe, "MAPSS: Manifold-based Assessment of Perceptual Source Separation" (arXiv 2509.09212).
Each reference is surrounded by distorted copies of itself; all are embedded frame by frame and laid out by a diffusion
map. PS compares an output's distance to its own cluster with that to the nearest other; PM asks how unusual its
distance from its reference is among the distortions. The bank here is smaller than the published one and the embedding
any function of sounds, so values compare only among results with the same bank and embedding. Report them beside SDR.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from avssl.errors import UsageError

Embed = Callable[[Tensor], Tensor]
"""Waveforms [N, S] -> vectors [N, frames, D]; the same number of frames for the same S."""

_KEPT = 0.99  # of the sum of eigenvalues
_RIDGE = 1e-6
_ACTIVE = 0.1  # of a reference's overall RMS: frames above it are active
_TINY = 1e-12


class Mapss(NamedTuple):
    """ps, pm: [sources] within 0 to 1, means over the frames where at least two sources are active (NaN: there are
    none); ps_frames, pm_frames: [frames, sources], NaN elsewhere."""

    ps: Tensor
    pm: Tensor
    ps_frames: Tensor
    pm_frames: Tensor


def mapss(references: Tensor, outputs: Tensor, embed: Embed, rate_hz: int = 16000, *, seed: int = 0) -> Mapss:
    """References and outputs [sources, S] in the same order. Loudness is taken out of both, so gains do not matter.

    Raises UsageError for fewer than two sources or unequal shapes.
    """
    if references.ndim != 2 or references.shape != outputs.shape or len(references) < 2:
        raise UsageError(
            f"mapss: references {list(references.shape)} and outputs {list(outputs.shape)} must be equal, [sources, S] "
            "with at least two sources"
        )
    references, outputs = _levelled(references.double()), _levelled(outputs.double())
    banks = torch.stack([distortions(reference, rate_hz, seed) for reference in references])
    sounds = torch.cat([references, outputs, banks.flatten(0, 1)]).float()
    vectors = embed(sounds).double().transpose(0, 1)  # [frames, N, D]
    active = _active(references, len(vectors))
    ps, pm = (torch.full((len(vectors), len(references)), torch.nan, dtype=torch.float64) for _ in range(2))
    for frame in torch.nonzero(active.sum(dim=1) >= 2).flatten().tolist():
        here = torch.nonzero(active[frame]).flatten()
        ps[frame, here], pm[frame, here] = _frame_scores(vectors[frame], here, len(references), banks.shape[1])
    return Mapss(ps.nanmean(dim=0), pm.nanmean(dim=0), ps, pm)


def distortions(reference: Tensor, rate_hz: int, seed: int = 0) -> Tensor:
    """A bank of distorted copies [N, S] of a reference [S]: filters, noise, tones, echoes, clipping, tremolo."""
    generator = torch.Generator().manual_seed(seed)
    samples = len(reference)
    time_s = torch.arange(samples, dtype=torch.float64) / rate_hz
    level = reference.square().mean().sqrt()
    hz = torch.fft.rfftfreq(samples, 1 / rate_hz, dtype=torch.float64)
    spectrum = torch.fft.rfft(reference)

    def filtered(gain: Tensor) -> Tensor:
        return torch.fft.irfft(spectrum * gain, n=samples)

    bank = [filtered(1 / (1 + (hz / cut) ** 4)) for cut in (500.0, 1500.0, 4000.0)]
    bank += [filtered(1 - 1 / (1 + (hz / cut) ** 4)) for cut in (150.0, 500.0, 1500.0)]
    bank += [filtered(1 - torch.exp(-(((hz - centre) / 150) ** 2))) for centre in (400.0, 1000.0, 2500.0)]
    for exponent in (0.0, 1.0):  # white, then pink noise
        noise = torch.fft.rfft(torch.randn(samples, generator=generator, dtype=torch.float64))
        noise = torch.fft.irfft(noise / hz.clamp(min=20) ** (exponent / 2), n=samples)
        noise = noise / noise.square().mean().sqrt().clamp(min=_TINY)
        bank += [reference + level * 10 ** (-snr_db / 20) * noise for snr_db in (-15.0, -5.0, 5.0, 15.0, 25.0)]
    bank += [reference + level * torch.sin(2 * torch.pi * tone * time_s) for tone in (440.0, 2000.0)]
    for delay_s in (0.003, 0.012, 0.06):
        shift = min(round(delay_s * rate_hz), samples - 1)
        bank.append(reference + 0.6 * torch.cat([torch.zeros(shift, dtype=torch.float64), reference])[:samples])
    peak = reference.abs().amax()
    bank += [reference.clamp(-part * peak, part * peak) for part in (0.1, 0.3)]
    bank += [reference * (0.6 + 0.4 * torch.sin(2 * torch.pi * rate * time_s)) for rate in (4.0, 9.0)]
    bank.append(torch.where(reference.abs() > 0.1 * peak, reference, 0.0))
    return _levelled(torch.stack(bank))


def log_spectra(sounds: Tensor, frame: int = 320, fft: int = 512) -> Tensor:
    """The plainest embedding: [N, S] -> [N, frames, fft // 2 + 1], log power in frames of 20 ms at 16 kHz."""
    window = torch.hann_window(fft, device=sounds.device)
    spectrum = torch.stft(sounds, fft, frame, window=window, return_complex=True)
    return (spectrum.abs().square() + 1e-6).log10().transpose(1, 2)


def diffusion_map(points: Tensor) -> Tensor:
    """Points [N, D] -> coordinates [N, d]: the leading eigenvectors of the normalised kernel, scaled by eigenvalue.

    They are those of the symmetric matrix, not divided by the root of the degree, as in the published code.
    """
    distances = torch.cdist(points, points).square()
    pairs = distances[~torch.eye(len(points), dtype=torch.bool)]
    kernel = torch.exp(-distances / (2 * pairs.median().clamp(min=_TINY)))
    degree = kernel.sum(dim=1)
    kernel = kernel / (degree[:, None] * degree)  # takes the density of the points out
    root = kernel.sum(dim=1).sqrt()
    values, vectors = torch.linalg.eigh(kernel / (root[:, None] * root))
    values, vectors = values.flip(0)[1:].clamp(min=0), vectors.flip(1)[:, 1:]
    share = values.cumsum(0) / values.sum().clamp(min=_TINY)
    kept = int((share < _KEPT).sum()) + 1
    return vectors[:, :kept] * values[:kept]


def _frame_scores(vectors: Tensor, here: Tensor, sources: int, copies: int) -> tuple[Tensor, Tensor]:
    """PS and PM of the active sources `here`; vectors [N, D] in the order references, outputs, banks."""
    banks = [2 * sources + source * copies + torch.arange(copies) for source in here.tolist()]
    chosen = torch.cat([here, here + sources, *banks])
    layout = diffusion_map(vectors[chosen])
    count = len(here)
    references, outputs = layout[:count], layout[count : 2 * count]
    clouds = layout[2 * count :].view(count, copies, -1)
    ps, pm = [], []
    for n in range(count):
        to_clusters = torch.stack(
            [_to_cluster(outputs[n], torch.cat([references[m : m + 1], clouds[m]])) for m in range(count)]
        )
        others = torch.cat([to_clusters[:n], to_clusters[n + 1 :]]).min()
        ps.append((1 - to_clusters[n] / (to_clusters[n] + others).clamp(min=_TINY)).clamp(0, 1))
        pm.append(_usual(outputs[n] - references[n], clouds[n] - references[n]))
    return torch.stack(ps), torch.stack(pm)


def _to_cluster(point: Tensor, cluster: Tensor) -> Tensor:
    """Mahalanobis distance of a point [d] to a cluster [N, d]."""
    centred = cluster - cluster.mean(dim=0)
    return _squared(point - cluster.mean(dim=0), centred.T @ centred / max(len(cluster) - 1, 1)).clamp(min=0).sqrt()


def _usual(output: Tensor, cloud: Tensor) -> Tensor:
    """1 minus the share of distortions expected to be nearer to the reference than the output, by a gamma law."""
    covariance = cloud.T @ cloud / max(len(cloud) - 1, 1)
    near = torch.stack([_squared(one, covariance) for one in cloud])
    mean, variance = near.mean(), near.var()
    if not variance > _TINY:
        return torch.zeros((), dtype=torch.float64)
    found = _squared(output, covariance).clamp(min=0)
    return 1 - torch.special.gammainc(mean**2 / variance, found * mean / variance)


def _squared(difference: Tensor, covariance: Tensor) -> Tensor:
    regular = covariance + _RIDGE * torch.eye(len(covariance), dtype=covariance.dtype)
    return difference @ torch.linalg.solve(regular, difference)


def _levelled(sounds: Tensor) -> Tensor:
    """[N, S] at one RMS; silence stays silent."""
    level = sounds.square().mean(dim=-1, keepdim=True).sqrt()
    return torch.where(level > _TINY, 0.1 * sounds / level.clamp(min=_TINY), sounds)


def _active(references: Tensor, frames: int) -> Tensor:
    """[frames, sources] bool: the RMS around each frame's centre is above a tenth of the whole."""
    samples = references.shape[1]
    edges = torch.linspace(0, samples, frames + 1).long()
    parts = [references[:, a : max(b, a + 1)] for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    levels = torch.stack([part.square().mean(dim=1).sqrt() for part in parts])
    return levels > _ACTIVE * references.square().mean(dim=1).sqrt()
