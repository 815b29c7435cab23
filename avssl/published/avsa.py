"""AVSA: two towers without heads. What it trains on top of them, the aligner, was published as the training criterion.

Source: Morgado et al., arXiv 2011.01819; the code and checkpoint that came with it state no licence.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import torch

from avssl.errors import ModelError
from avssl.models.aligner import Aligner
from avssl.models.config import AlignmentConfig, ModelConfig, TowerConfig
from avssl.models.weights import Difference
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Conversion
from avssl.published.two_tower import TwoTowerLayout
from avssl.spatial.config import Switches

_WIDTH = 512
# What the networks of the two phases compute, and what they were fed with.
_PHASES = {
    "alignment": AlignmentConfig(depth=2, final_relu=True, switches=Switches.released()),
    "correspondence": AlignmentConfig(depth=None, final_relu=True, switches=Switches.released()),
}
_PREFIXES = {  # ours -> published
    "alignment": {"": "losses.0."},
    "correspondence": {"video_head.": "losses.0.video_projection.", "audio_head.": "losses.0.audio_projection."},
}
_OURS = "aligner."


class Avsa(TwoTowerLayout):
    name = "avsa"
    title = "AVSA"
    licence = "none stated by the publishers: all rights are theirs unless they say otherwise"
    variants: ClassVar[list[ModelConfig]] = [
        ModelConfig(video=TowerConfig("avsa_r2plus1d_18"), audio=TowerConfig("avsa_audio_cnn9"), head=None)
    ]
    # released: trained with the views and flips of the released code, which its paper describes differently in places.
    switches: ClassVar[dict[str, Any]] = {"stem_max_pool": False, "audio_block1_stride": 1, "mode": "released"}
    own_prefixes = (_OURS,)

    def take_criterion(self, checkpoint: Checkpoint, conversion: Conversion) -> None:
        criterion = checkpoint.criterion
        names = {phase: _published_names(phase) for phase in _PHASES}
        differences = {
            phase: Difference.between(criterion, {names[phase][key]: tensor for key, tensor in _aligner(phase).items()},
                                      types=True)
            for phase in _PHASES
        }  # fmt: skip
        phase = min(differences, key=lambda name: len(differences[name]))
        if difference := differences[phase]:
            raise ModelError(
                f"{checkpoint.path}: train_criterion is none of AVSA's (closest: {phase}): {difference}; add "
                "--ignore-criterion to convert the towers without it"
            )
        config = copy.deepcopy(_PHASES[phase])
        aligner = Aligner(_WIDTH, config)
        aligner.load_state_dict({ours: criterion[theirs] for ours, theirs in names[phase].items()})
        conversion.config.alignment = config
        conversion.model.aligner = aligner
        conversion.facts["criterion"] = {
            "phase": phase,
            "entries": len(criterion),
            "parameters": sum(tensor.numel() for tensor in criterion.values()),
        }

    def revert_criterion(self, folder: Path, config: ModelConfig, state: State) -> State:
        """The published criterion from a model's aligner. Raises ModelError if it computes another thing."""
        if config.alignment is None:
            return {}
        phase = "correspondence" if config.alignment.depth is None else "alignment"
        published = _PHASES[phase]
        for key in ("depth", "heads", "expansion", "context", "final_relu", "dim"):
            ours, theirs = getattr(config.alignment, key), getattr(published, key)
            if ours != theirs and not (config.alignment.depth is None and key != "dim"):
                raise ModelError(
                    f"{folder}: model.alignment.{key} is {ours}, which the avsa layout has as {theirs} only"
                )
        own = {key.removeprefix(_OURS): tensor for key, tensor in state.items() if key.startswith(_OURS)}
        if difference := Difference.between(own, _aligner(phase), types=True):
            raise ModelError(f"{folder}: the aligner is none of the avsa layout: {difference}")
        return {theirs: own[ours] for ours, theirs in _published_names(phase).items()}


def _aligner(phase: str) -> State:
    """Names, shapes and types of a phase's aligner, without numbers."""
    with torch.device("meta"):
        return Aligner(_WIDTH, _PHASES[phase]).state_dict()


def _published_names(phase: str) -> dict[str, str]:
    """For each entry of a phase's aligner, the published one."""
    names = {}
    for key in _aligner(phase):
        ours, theirs = next((a, b) for a, b in _PREFIXES[phase].items() if key.startswith(a))
        names[key] = theirs + key.removeprefix(ours)
    return names


LAYOUT = Avsa()
