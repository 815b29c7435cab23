"""A temperature for every clip, learned with the loss (iSogCLR, arXiv 2305.11965; SogCLR, arXiv 2202.12387)."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from avssl.objectives.bank import last_of_each
from avssl.objectives.nce import negative_mask

LARGEST_GRADIENT = 5.0  # of a temperature, before it enters its momentum


class Temperatures(nn.Module):
    """Temperatures of the queries of one modality, one a row, and the loss that moves them.

    With h_ij = s_i . t_j - s_i . t_i over the n negatives j of query i:

        g_i = mean_j exp(h_ij / tau_i)              s_i <- (1 - gamma) s_i + gamma g_i  (first visit: s_i = g_i)
        p_ij = exp(h_ij / tau_i) / s_i, constant    loss_i = mean_j p_ij h_ij
        G_i = log s_i + rho - mean_j p_ij h_ij / tau_i
        m_i <- (1 - beta) m_i + beta clip(G_i, -5, 5)
        tau_i <- clip(tau_i - eta m_i, low, high)

    s is kept as its logarithm, so no exponent overflows. Where s = g, G = rho - KL(p || uniform): a temperature
    settles where the entropy lost is rho. A row's first visit knows one batch only and leaves its temperature alone.

    Args:
        rows: number of rows of the manifest.
        start, low, high: temperature at the start and its range.
        rho: the aimed KL; above log(n) it cannot be reached and temperatures fall to `low`.
        average: gamma in (0, 1], share of the new batch in s. smooth: beta in (0, 1], share of the new gradient in m.
        rate: eta; 0 keeps the temperatures.
    """

    temperature: Tensor
    log_mean: Tensor
    gradient: Tensor

    def __init__(
        self,
        rows: int,
        *,
        start: float = 0.01,
        low: float = 0.005,
        high: float = 0.05,
        rho: float = 6.0,
        average: float = 0.8,
        smooth: float = 0.9,
        rate: float = 0.03,
    ):
        super().__init__()
        self.low, self.high, self.rho = low, high, rho
        self.average, self.smooth, self.rate = average, smooth, rate
        self.register_buffer("temperature", torch.full((rows,), start))
        self.register_buffer("log_mean", torch.full((rows,), -torch.inf))  # -inf: not visited yet
        self.register_buffer("gradient", torch.zeros(rows))

    def forward(self, similarities: Tensor, positive: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The loss [B] of each query, and the new state [B, 3] of their rows for `update`.

        Args:
            similarities: [B, J] inner products of unit vectors, *not* over a temperature; -inf takes a candidate out.
            positive: [B] int64, the column of each query's own target. rows: [B] int64, the queries' rows.
        """
        if self.rho > math.log(max(1, similarities.shape[1] - 1)):
            warnings.warn(
                f"isogclr: rho {self.rho:g} is above log({similarities.shape[1] - 1} negatives), which no batch can "
                f"reach, so temperatures fall to the floor of {self.low:g}; lower rho or show more negatives",
                stacklevel=2,
            )
        negatives = negative_mask(similarities, positive)
        number = negatives.sum(1).clamp(min=1)
        relative = similarities.float() - similarities.float().gather(1, positive[:, None])
        relative = relative.masked_fill(~negatives, 0)
        with torch.no_grad():
            temperature, log_mean, gradient = self.temperature[rows], self.log_mean[rows], self.gradient[rows]
            exponents = (relative / temperature[:, None]).masked_fill(~negatives, -torch.inf)
            log_batch = exponents.logsumexp(1) - number.log()
            known, judged = log_mean > -torch.inf, log_batch > -torch.inf
            moved = torch.logaddexp(log_mean + _log(1 - self.average), log_batch + _log(self.average))
            log_mean = torch.where(judged, torch.where(known, moved, log_batch), log_mean)
            weights = (exponents - log_mean[:, None]).exp().masked_fill(~negatives, 0) / number[:, None]

            slope = log_mean + self.rho - (weights * relative).sum(1) / temperature
            smoothed = torch.lerp(gradient, slope.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT), self.smooth)
            gradient = torch.where(known & judged, smoothed, gradient)
            stepped = (temperature - self.rate * gradient).clamp(self.low, self.high)
            temperature = torch.where(known & judged, stepped, temperature)
        return (weights * relative).sum(1), torch.stack([temperature, log_mean, gradient], 1)

    @torch.no_grad()
    def update(self, rows: Tensor, state: Tensor) -> None:
        """Store the `state` [G, 3] of `rows` [G], both in global sample order; of a repeated row the last counts."""
        rows, last = last_of_each(rows)
        self.temperature[rows], self.log_mean[rows], self.gradient[rows] = state[last].unbind(1)


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
