"""AVSA: two towers without heads; the criterion holds trained transformers and heads.

Source: Morgado et al., arXiv 2011.01819; the code and checkpoint that came with it state no licence.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from avssl.errors import ModelError
from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.weights import Difference
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Conversion
from avssl.published.two_tower import CRITERION, TwoTowerLayout

_WIDTH, _INNER, _HEAD, _LAYERS = 512, 2048, 128, 2


class Avsa(TwoTowerLayout):
    name = "avsa"
    title = "AVSA"
    licence = "none stated by the publishers: all rights are theirs unless they say otherwise"
    variants: ClassVar[list[ModelConfig]] = [
        ModelConfig(video=TowerConfig("avsa_r2plus1d_18"), audio=TowerConfig("avsa_audio_cnn9"), head=None)
    ]
    # released: trained with the views and flips of the released code, which its paper describes differently in places.
    switches: ClassVar[dict[str, Any]] = {"stem_max_pool": False, "audio_block1_stride": 1, "mode": "released"}

    def take_criterion(self, checkpoint: Checkpoint, conversion: Conversion) -> None:
        criterion = checkpoint.criterion
        known = {"alignment": _alignment_criterion(), "correspondence": _correspondence_criterion()}
        differences = {phase: Difference.between(criterion, known[phase], types=True) for phase in known}
        phase = min(differences, key=lambda name: len(differences[name]))
        if difference := differences[phase]:
            raise ModelError(
                f"{checkpoint.path}: train_criterion is none of AVSA's (closest: {phase}): {difference}; add "
                "--ignore-criterion to convert the towers without it"
            )
        conversion.files[CRITERION] = criterion
        conversion.facts["criterion"] = {
            "file": CRITERION,
            "phase": phase,
            "entries": len(criterion),
            "parameters": sum(tensor.numel() for tensor in criterion.values()),
        }


def _alignment_criterion() -> State:
    """Phase 2: two transformers over the features of a sample's views, four heads."""
    expected: State = {}
    for transformer in ("v2a_transformer", "a2v_transformer"):
        for number in range(_LAYERS):
            layer = f"losses.0.{transformer}.transformer.{number}."
            for name in ("query", "key", "value", "dense"):
                expected |= _linear(f"{layer}attention.{name}", _WIDTH, _WIDTH)
            expected |= _linear(f"{layer}dense.0", _INNER, _WIDTH) | _linear(f"{layer}dense.2", _WIDTH, _INNER)
            for name in ("attention_norm", "dense_norm"):
                expected |= {f"{layer}{name}.{part}": torch.empty(_WIDTH, device="meta") for part in ("weight", "bias")}
    for head in ("video_head", "audio_head", "video_pred_head", "audio_pred_head"):
        expected |= _linear(f"losses.0.{head}.projection.0", _HEAD, _WIDTH)
    return expected


def _correspondence_criterion() -> State:
    """Phase 1: a head for each modality."""
    heads = [_linear(f"losses.0.{kind}_projection.projection.0", _HEAD, _WIDTH) for kind in ("video", "audio")]
    return heads[0] | heads[1]


def _linear(name: str, width_out: int, width_in: int) -> State:
    return {
        f"{name}.weight": torch.empty(width_out, width_in, device="meta"),
        f"{name}.bias": torch.empty(width_out, device="meta"),
    }


LAYOUT = Avsa()
