"""PS and PM of MAPSS for recordings of any length: in excerpts, averaged over all frames with two sources or more."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from avssl.models.folder import load
from avssl.separation.mapss import Embed, log_spectra, mapss
from avssl.separation.rates import Converter
from avssl.separation.tagger import Tagger

LOG_SPECTRA = "log_spectra"
_EXCERPT_S = 10.0
_BATCH = 8  # sounds embedded at once


class MapssMeter:
    """Measures with the embedding `model`: `log_spectra`, or the folder of a tagger, whose last maps are taken."""

    def __init__(self, model: str, device: str):
        self._rate_hz, self._embed = 16_000, cast(Embed, log_spectra)
        if model != LOG_SPECTRA:
            tagger: Tagger = load(model, device=device, kind="tagger")
            self._rate_hz, self._embed = tagger.rate_hz, _embedding_of(tagger)

    def __call__(self, references: Tensor, outputs: Tensor, rate_hz: int) -> tuple[list[float], list[float]]:
        """References and outputs [sources, S], at least two -> (PS, PM) of each source; NaN where no frame counts."""
        convert = Converter(rate_hz, self._rate_hz).whole
        samples = round(_EXCERPT_S * self._rate_hz)
        parts = zip(convert(references).split(samples, dim=1), convert(outputs).split(samples, dim=1), strict=True)
        found = [mapss(*part, self._embed, self._rate_hz) for part in parts if part[0].shape[1] >= self._rate_hz // 4]
        if not found:
            return [float("nan")] * len(references), [float("nan")] * len(references)
        ps = torch.cat([one.ps_frames for one in found]).nanmean(dim=0)
        pm = torch.cat([one.pm_frames for one in found]).nanmean(dim=0)
        return ps.tolist(), pm.tolist()


def _embedding_of(tagger: Tagger) -> Embed:
    @torch.inference_mode()
    def embed(sounds: Tensor) -> Tensor:
        return torch.cat([tagger.model.steps(part.to(tagger.device)).cpu() for part in sounds.split(_BATCH)])

    return embed
