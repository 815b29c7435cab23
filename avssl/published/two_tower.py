"""What the layouts of AVID and AVSA share: two towers whose names differ from ours in their beginnings only."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch

from avssl.errors import ConfigError, ModelError
from avssl.models.config import ModelConfig
from avssl.models.folder import CONFIG, WEIGHTS, read_description, save_model
from avssl.models.heads import ProjectionHead
from avssl.models.registry import create_tower
from avssl.models.two_tower import TwoTower
from avssl.models.weights import Difference, read_weights
from avssl.published.card import model_card
from avssl.published.checkpoint import WRAPPER, Checkpoint, State, sha256_of
from avssl.published.layout import Choices, Conversion, Layout

PREFIXES = {  # published -> ours
    "video_model.": "video_tower.",
    "audio_model.": "audio_tower.",
    "video_proj.": "video_head.",
    "audio_proj.": "audio_head.",
}
FRONT_END = "front_end."  # ours alone: the statistics, which published files do not hold


class TwoTowerLayout(Layout):
    """`variants`: the models that were published. `switches`: what they compute though no shape tells it.
    `own_prefixes`: of what in the model becomes the criterion again."""

    variants: ClassVar[list[ModelConfig]]
    switches: ClassVar[dict[str, Any]]
    own_prefixes: ClassVar[tuple[str, ...]] = ()

    def difference(self, model: State) -> Difference:
        return self._closest(model)[1]

    def convert(self, checkpoint: Checkpoint, choices: Choices) -> Conversion:
        config = ModelConfig.from_dict(self._closest(checkpoint.model)[0].to_dict())
        assert config.audio_input
        if choices.stats_file:
            config.audio_input.front_end.stats_file = str(choices.stats_file)
        model = TwoTower(config)
        _, unexpected = model.load_state_dict(_renamed(checkpoint.model, PREFIXES), strict=False)
        assert not unexpected and model.front_end is not None
        statistics, warnings = self._statistics(model, choices)
        facts: dict[str, Any] = {
            "source": {
                "layout": self.name,
                "file": checkpoint.path.name,
                "epoch": checkpoint.epoch,
                "entries": len(checkpoint.model),
                "parameters": sum(p.numel() for p in model.parameters()),
            },
            "source_sha256": checkpoint.sha256,
            "variant": {**self.switches, "front_end": config.audio_input.front_end.name, "statistics": statistics},
            "licence": self.licence,
        }
        conversion = Conversion(model, config, facts, left_out=list(checkpoint.others), warnings=warnings)
        if choices.ignore_criterion:
            conversion.left_out += ["train_criterion"] * bool(checkpoint.criterion)
        elif checkpoint.criterion:
            self.take_criterion(checkpoint, conversion)
        return conversion

    @abstractmethod
    def take_criterion(self, checkpoint: Checkpoint, conversion: Conversion) -> None:
        """Put into `conversion` what the checkpoint's criterion holds. Raises ModelError if it is unknown."""

    def revert_criterion(self, folder: Path, config: ModelConfig, state: State) -> State:
        """The published criterion from a model folder's configuration and state; empty where there is none in it."""
        return {}

    def write(self, folder: Path, conversion: Conversion) -> None:
        card = model_card(self.title, conversion)
        save_model(folder, conversion.model, conversion.config, card=card, extra=conversion.facts)

    def revert(self, folder: Path) -> dict[str, Any]:
        description, state = read_description(folder), read_weights(folder / WEIGHTS)
        config = self._config(folder, description)
        variant = self._variant(folder, config)
        published = _renamed(
            {key: tensor for key, tensor in state.items() if not key.startswith((FRONT_END, *self.own_prefixes))},
            {ours: theirs for theirs, ours in PREFIXES.items()},
        )
        expected = _expected(variant)
        if difference := Difference.between(published, expected, types=True):
            raise ModelError(f"{folder}: the model has no {self.name} layout: {difference}")
        source = description.get("source")
        epoch = source.get("epoch") if isinstance(source, dict) else None
        content: dict[str, Any] = {"epoch": epoch or 0, "model": {WRAPPER + key: published[key] for key in expected}}
        if criterion := self.revert_criterion(folder, config, state):
            content["train_criterion"] = criterion
        return content

    def _config(self, folder: Path, description: dict[str, Any]) -> ModelConfig:
        try:
            return ModelConfig.from_dict(description["model"])
        except ConfigError as error:
            raise ModelError(f"{folder / CONFIG}: {error}") from error

    def _variant(self, folder: Path, config: ModelConfig) -> ModelConfig:
        """The variant with the towers of a model folder."""
        known = {_towers(variant): variant for variant in self.variants}
        if _towers(config) not in known:
            raise ModelError(
                f"{folder}: the towers {_towers(config)} have no {self.name} layout, which is of {' or '.join(known)}"
            )
        return known[_towers(config)]

    def _closest(self, model: State) -> tuple[ModelConfig, Difference]:
        found = [(config, Difference.between(model, _expected(config), types=True)) for config in self.variants]
        return min(found, key=lambda pair: len(pair[1]))

    def _statistics(self, model: TwoTower, choices: Choices) -> tuple[dict[str, Any], list[str]]:
        """What config.json says about the front end's statistics, and a warning if they are not the user's."""
        if choices.stats_file:
            return {"file": choices.stats_file.name, "sha256": sha256_of(choices.stats_file)}, []
        assert model.front_end is not None
        mean_db, std_db = (round(float(value.mean()), 4) for value in (model.front_end.mean, model.front_end.std))
        warning = (
            "the features of sound depend on the normalisation that the model was trained with, which the file does "
            f"not hold; used instead of one value a frequency: mean {mean_db:g} dB, std {std_db:g} dB for all; give "
            "the published vectors with --stats FILE"
        )
        return {"file": None, "mean_db": mean_db, "std_db": std_db}, [warning]


def _towers(config: ModelConfig) -> str:
    return " and ".join(tower.name if tower else "none" for tower in (config.video, config.audio))


def _expected(config: ModelConfig) -> State:
    """Names, shapes and types of the published state dict of a variant, without numbers."""
    assert config.video and config.audio and config.audio_input
    with torch.device("meta"):
        video = create_tower("video", config.video.name)
        audio = create_tower("audio", config.audio.name, in_channels=config.audio_input.channels)
        parts: dict[str, torch.nn.Module] = {"video_model.": video, "audio_model.": audio}
        if config.head:
            for prefix, tower in (("video_proj.", video), ("audio_proj.", audio)):
                parts[prefix] = ProjectionHead(tower.feature_dim, config.head.hidden, config.head.dim)
    return {prefix + key: tensor for prefix, part in parts.items() for key, tensor in part.state_dict().items()}


def _renamed(state: State, prefixes: dict[str, str]) -> State:
    renamed = {}
    for key, tensor in state.items():
        prefix = key.partition(".")[0] + "."
        renamed[prefixes.get(prefix, prefix) + key.removeprefix(prefix)] = tensor
    return renamed
