"""AudioSep: USS's separator on text embeddings of CLAP, which stay outside (give its vectors by file).

Source: Liu et al., arXiv 2308.05037; checkpoints of Lightning.
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
from avssl.published import resunet
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Choices, Conversion
from avssl.published.sound import SoundLayout, check_constants, read_folder

_TEXT = "query_encoder."
_DIM = 512
_CONFIG = SeparatorModelConfig(SeparatorConfig(_DIM), QueryConfig("embedding", _DIM), source="vector", window_s=5.0)


class AudioSep(SoundLayout):
    name = "audiosep"
    title = "AudioSep"
    licence = "as its publishers state with the file"
    use = "model.separate(waveform, rate_hz, model.query_of_vector(clap_text_embedding))  # [C, S] -> [C, S]"

    def difference(self, model: State) -> Difference:
        own = {key: tensor for key, tensor in model.items() if not key.startswith(_TEXT)}
        return Difference.between(own, resunet.expected(_DIM), types=True)

    def convert(self, checkpoint: Checkpoint, choices: Choices) -> Conversion:
        check_constants(checkpoint, resunet.constants(_CONFIG.separator.fft))
        model = SeparatorModel(_CONFIG)
        ours = resunet.from_published(checkpoint.model, model.separator)
        load_into(model, {f"separator.{key}": tensor for key, tensor in ours.items()}, checkpoint.path)
        left_out = list(checkpoint.others)
        if any(key.startswith(_TEXT) for key in checkpoint.model):
            left_out.append("the text encoder (CLAP)")
        return Conversion(model, _CONFIG, self.facts(checkpoint, model, query="vector"), left_out=left_out)

    def revert(self, folder: Path) -> dict[str, Any]:
        config, state = read_folder(folder, "separator")
        if config.separator != _CONFIG.separator or config.tagger or config.two_tower:
            raise ModelError(f"{folder}: is no separator of AudioSep's size that takes vectors alone")
        with torch.device("meta"):
            network = SeparatorModel(config)
        own = {key.removeprefix("separator."): tensor for key, tensor in state.items()}
        return {"epoch": 0, "state_dict": resunet.to_published(own, network.separator)}


LAYOUT = AudioSep()
