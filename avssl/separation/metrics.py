"""How close a separated signal is to the true one. All values in dB over the last axis, computed in float64.

Names differ between papers; here each has one meaning:
SDR       plain signal-to-noise ratio, as USS reports it (no filter, no scaling is forgiven)
SI-SDR    scale-invariant (Le Roux et al., arXiv 1811.02508); means are not removed
SDR-v4    BSS-eval v4 as museval computes it: the median over frames of the plain ratio
SSNR      segmental ratio of speech enhancement: the mean over short frames of ratios within -10 and 35 dB
SDRi      a metric of the estimate minus the same metric of the mixture
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

POWER_FLOOR = 1e-10  # -100 dB: what is quieter counts as silence
LIMIT_DB = 100.0  # of SI-SDR: perfect, or nothing of the reference in the estimate

Metric = Callable[[Tensor, Tensor], Tensor]


def sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """10 log10 of the mean square of the reference over that of the error: [..., S], [..., S] -> [...].

    Both mean squares are at least 1e-10. So a silent reference gives 0 dB for a silent estimate and less for others,
    and a silent estimate gives 0 dB.
    """
    s, e = reference.double(), (estimate - reference).double()
    return 10 * (_power(s).clamp(min=POWER_FLOOR) / _power(e).clamp(min=POWER_FLOOR)).log10()


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
    """Ratio of what is proportional to the reference in the estimate to the rest: [..., S], [..., S] -> [...].

    Within ±100 dB; a silent estimate gives -100. For a silent reference there is nothing to project on: NaN, which
    `median_by_class` leaves out.
    """
    s, x = reference.double(), estimate.double()
    energy, product = s.square().sum(-1), (s * x).sum(-1)
    target = product.square() / energy
    error = (x - (product / energy)[..., None] * s).square().sum(-1)
    ratio = 10 * (target / error).log10()
    value = torch.where(target + error > 0, ratio, -LIMIT_DB).clamp(-LIMIT_DB, LIMIT_DB)
    return value.masked_fill(_power(s) <= POWER_FLOOR, torch.nan)


def sdr_v4(estimate: Tensor, reference: Tensor, window: int, hop: int | None = None) -> Tensor:
    """museval's SDR of one source: [..., C, S], [..., C, S] -> [...], the median over frames of `window` samples.

    Channels are summed. A frame where reference or estimate is silent is left out; NaN if all are.
    """
    hop = hop or window
    s, x = reference.double().unfold(-1, window, hop), estimate.double().unfold(-1, window, hop)
    signal, error = s.square().sum((-1, -3)), (x - s).square().sum((-1, -3))
    silent = (signal == 0) | (x.square().sum((-1, -3)) == 0)
    return (10 * (signal / error).log10()).masked_fill(silent, torch.nan).nanquantile(0.5, dim=-1)


def ssnr(estimate: Tensor, reference: Tensor, rate_hz: int) -> Tensor:
    """Segmental ratio: [..., S], [..., S] -> [...]; frames of 30 ms under a Hann window, a quarter of it apart.

    As pysepm computes it, which also leaves out the last frame. NaN for less sound than two frames.
    """
    length = round(0.03 * rate_hz)
    step = int(0.03 * rate_hz * 0.25)
    window = torch.hann_window(length + 2, periodic=False, dtype=torch.float64, device=reference.device)[1:-1]
    tiny = torch.finfo(torch.float64).eps
    if reference.shape[-1] < length + step:
        return torch.full(reference.shape[:-1], torch.nan, dtype=torch.float64)
    s = reference.double().unfold(-1, length, step) * window
    e = (estimate - reference).double().unfold(-1, length, step) * window
    ratio = 10 * (s.square().sum(-1) / (e.square().sum(-1) + tiny) + tiny).log10()
    return ratio.clamp(-10, 35)[..., :-1].mean(-1)


def improvement(metric: Metric, estimate: Tensor, reference: Tensor, mixture: Tensor) -> Tensor:
    """`metric` of the estimate minus `metric` of the mixture (SDRi, SI-SDRi)."""
    return metric(estimate, reference) - metric(mixture, reference)


def median_by_class(values: Tensor, classes: Sequence[Any]) -> tuple[float, dict[Any, float]]:
    """Median over the items of each class, then the mean over classes: (mean, {class: median}).

    NaN items are left out; a class of nothing else has a NaN median and is left out of the mean.
    """
    groups: dict[Any, list[float]] = {}
    for value, name in zip(values.tolist(), classes, strict=True):
        groups.setdefault(name, []).append(value)
    medians = {name: float(torch.tensor(items, dtype=torch.float64).nanquantile(0.5)) for name, items in groups.items()}
    return float(torch.tensor(list(medians.values()), dtype=torch.float64).nanmean()), medians


def _power(x: Tensor) -> Tensor:
    return x.square().mean(-1)
