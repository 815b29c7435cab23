"""PANNs: Cnn14 and Cnn14_DecisionLevelMax, the taggers of USS.

Source: Kong et al., arXiv 1912.10211. The two have the same names and shapes: the user says which one a file is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from avssl.errors import ModelError
from avssl.models.cnn14 import create_tagger
from avssl.models.front_ends import mel_filters
from avssl.models.separation_config import TaggerConfig
from avssl.models.sound_config import ClassRow, TaggerModelConfig
from avssl.models.weights import Difference, load_into
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Choices, Conversion
from avssl.published.sound import SoundLayout, analysis_kernels, check_constants, read_folder

AUDIOSET_CLASSES = 527
_KERNEL, _CLASSES, _BANKS = "spectrogram_extractor.stft.conv_real.weight", "fc_audioset.bias", "logmel_extractor.melW"
_FRONT_ENDS: dict[int, dict[str, Any]] = {  # by window: what else no shape tells
    1024: {"rate_hz": 32000, "fft": 1024, "hop": 320, "low_hz": 50.0, "high_hz": 14000.0},
    512: {"rate_hz": 16000, "fft": 512, "hop": 160, "low_hz": 50.0, "high_hz": 8000.0},
}


class Panns(SoundLayout):
    licence = "as its publishers state with the file (their code: MIT)"
    use = "model.probabilities(waveform, rate_hz)  # [..., S] -> [..., classes]"

    def __init__(self, name: str, title: str, decision: Literal["clip", "frame"]):
        self.name, self.title, self.decision = name, title, decision

    def difference(self, model: State) -> Difference:
        return Difference.between(model, expected(tagger_config(model, self.decision)), types=True)

    def convert(self, checkpoint: Checkpoint, choices: Choices) -> Conversion:
        config = model_config(checkpoint.model, self.decision)
        check_constants(checkpoint, constants(config.tagger))
        network = create_tagger(config.tagger)
        load_into(network, without_constants(checkpoint.model), checkpoint.path)
        facts = self.facts(checkpoint, network, decision=self.decision)
        warnings = []
        if config.tagger.classes != AUDIOSET_CLASSES:
            warnings.append(f"the names of its {config.tagger.classes} classes are not in the file; they are numbered")
        return Conversion(network, config, facts, left_out=list(checkpoint.others), warnings=warnings)

    def revert(self, folder: Path) -> dict[str, Any]:
        config, state = read_folder(folder, "tagger")
        if config.tagger.decision != self.decision:
            raise ModelError(
                f"{folder}: decides by {config.tagger.decision}, the layout {self.name} by {self.decision}"
            )
        published = {**constants(config.tagger), **state}
        wanted = expected(tagger_config(published, self.decision))
        if difference := Difference.between(published, wanted, types=True):
            raise ModelError(f"{folder}: the model has no {self.name} layout: {difference}")
        return {"iteration": 0, "model": {key: published[key] for key in wanted}}


def tagger_config(state: State, decision: Literal["clip", "frame"]) -> TaggerConfig:
    """The Cnn14 that this state dict is nearest to: window and number of classes are read from its shapes."""
    kernel, bias = state.get(_KERNEL), state.get(_CLASSES)
    window = kernel.shape[-1] if kernel is not None and kernel.ndim else 0
    classes = len(bias) if bias is not None and bias.ndim == 1 and len(bias) else AUDIOSET_CLASSES
    return TaggerConfig(decision=decision, classes=classes, **_FRONT_ENDS.get(window, _FRONT_ENDS[1024]))


def model_config(state: State, decision: Literal["clip", "frame"]) -> TaggerModelConfig:
    config = tagger_config(state, decision)
    if config.classes == AUDIOSET_CLASSES:
        return TaggerModelConfig(config, "audioset")
    rows = [ClassRow(f"class-{number}", f"class-{number}", number) for number in range(config.classes)]
    return TaggerModelConfig(config, rows)


def expected(config: TaggerConfig) -> State:
    """Names, shapes and types of the published state dict."""
    with torch.device("meta"):
        own = create_tagger(config).state_dict()
    return {**{key: tensor.to("meta") for key, tensor in constants(config).items()}, **own}


def constants(config: TaggerConfig) -> dict[str, Tensor]:
    """The entries that hold the transform and the filter bank."""
    real, imaginary = analysis_kernels(config.fft)
    filters = mel_filters(config.rate_hz, config.fft, config.bands, config.low_hz, config.high_hz)
    return {
        _KERNEL: real,
        _KERNEL.replace("real", "imag"): imaginary,
        _BANKS: torch.from_numpy(filters).float(),
    }


def without_constants(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith(("spectrogram_", "logmel_"))}


CLIPS = Panns("panns_clips", "PANNs Cnn14", "clip")
FRAMES = Panns("panns_frames", "PANNs Cnn14_DecisionLevelMax", "frame")
