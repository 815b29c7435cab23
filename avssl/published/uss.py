"""USS: a separator, the Cnn14 that its queries are made with, and the tagger that mined its anchors (left out here).

Source: Kong et al., arXiv 2305.07447; checkpoints of Lightning, published under Apache-2.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from avssl.errors import ModelError
from avssl.models.separation_config import QueryConfig, SeparatorConfig
from avssl.models.separator_model import SeparatorModel
from avssl.models.sound_config import SeparatorModelConfig
from avssl.models.weights import Difference, load_into
from avssl.published import panns, resunet
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Choices, Conversion
from avssl.published.sound import SoundLayout, check_constants, read_folder

_BASE, _MINER = "query_net.base.", "anchor_segment_detector."
_ADAPTER = {"query.adapter.0.": "query_net.fc1.", "query.adapter.3.": "query_net.fc2."}  # ours -> published


class Uss(SoundLayout):
    name = "uss"
    title = "USS"
    licence = "Apache-2.0"
    use = 'model.separate(waveform, rate_hz, "Speech")  # [C, S] -> [C, S]'

    def difference(self, model: State) -> Difference:
        own = {key: tensor for key, tensor in model.items() if not key.startswith(_MINER)}
        return Difference.between(own, expected(model_config(model)), types=True)

    def convert(self, checkpoint: Checkpoint, choices: Choices) -> Conversion:
        state = checkpoint.model
        config = model_config(state)
        assert config.tagger
        model = SeparatorModel(config)
        tagger = _within(state, _BASE)
        check_constants(checkpoint, resunet.constants(config.separator.fft))
        kernels = {_BASE + key: tensor for key, tensor in panns.constants(config.tagger).items()}
        check_constants(checkpoint, kernels)
        ours = {f"separator.{key}": tensor for key, tensor in resunet.from_published(state, model.separator).items()}
        ours |= {f"tagger.{key}": tensor for key, tensor in panns.without_constants(tagger).items()}
        for own, theirs in _ADAPTER.items():
            ours |= {own + key: tensor for key, tensor in _within(state, theirs).items()}
        load_into(model, ours, checkpoint.path)
        facts = self.facts(checkpoint, model, query=config.query.kind)
        left_out = list(checkpoint.others)
        if any(key.startswith(_MINER) for key in state):
            left_out.append("the tagger that mined anchors")
        warnings = []
        if config.query.reads_embedding:
            warnings.append("its queries are embeddings, which stand for no class: give it examples of a sound")
        return Conversion(model, config, facts, left_out=left_out, warnings=warnings)

    def revert(self, folder: Path) -> dict[str, Any]:
        config, state = read_folder(folder, "separator")
        if config.tagger is None or config.two_tower is not None:
            raise ModelError(f"{folder}: its queries are not made by a tagger alone, so it has no uss layout")
        network = _network(config)
        theirs = resunet.to_published(_within(state, "separator."), network.separator)
        tagger = {**panns.constants(config.tagger), **_within(state, "tagger.")}
        theirs |= {_BASE + key: tensor for key, tensor in tagger.items()}
        for own, published in _ADAPTER.items():
            theirs |= {published + key: tensor for key, tensor in _within(state, own).items()}
        wanted = expected(model_config(theirs))
        if difference := Difference.between(theirs, wanted, types=True):
            raise ModelError(f"{folder}: the model has no uss layout: {difference}")
        return {"epoch": 0, "state_dict": {key: theirs[key] for key in wanted}}


def model_config(state: State) -> SeparatorModelConfig:
    """The model that this state dict is nearest to: what its queries are is read from the shapes."""
    tagger = panns.tagger_config(_within(state, _BASE), "clip")
    dim = resunet.condition_dim(state)
    if (weight := state.get("query_net.fc1.weight")) is not None and weight.ndim == 2:
        query = QueryConfig("adaptive", tagger.embedding_dim, hidden=max(1, len(weight)), out=dim)
    else:
        embedding = dim == tagger.embedding_dim
        query = QueryConfig("embedding" if embedding else "soft", tagger.embedding_dim if embedding else tagger.classes)
    return SeparatorModelConfig(
        separator=SeparatorConfig(query.condition_dim),
        query=query,
        source="tagger",
        tagger=tagger,
        classes=panns.model_config(_within(state, _BASE), "clip").classes,
    )


def expected(config: SeparatorModelConfig) -> State:
    """Names, shapes and types of the published state dict without the tagger that mined anchors."""
    assert config.tagger
    network = _network(config)
    theirs = resunet.expected(config.separator.condition_dim)
    theirs |= {_BASE + key: tensor for key, tensor in panns.expected(config.tagger).items()}
    for own, published in _ADAPTER.items():
        theirs |= {published + key: tensor for key, tensor in _within(network.state_dict(), own).items()}
    return theirs


def _network(config: SeparatorModelConfig) -> SeparatorModel:
    with torch.device("meta"):
        return SeparatorModel(config)


def _within(state: State, prefix: str) -> State:
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


LAYOUT = Uss()
