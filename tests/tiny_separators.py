"""Small separators and taggers for tests: random weights, or weights that make the answer known."""

from pathlib import Path

import torch

from avssl.models.cnn14 import Cnn14, create_tagger
from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
from avssl.models.folder import save_model
from avssl.models.separation_config import QueryConfig, SeparatorConfig, TaggerConfig
from avssl.models.separator_model import SeparatorModel
from avssl.models.sound_config import ClassRow, SeparatorModelConfig, TaggerModelConfig

RATE_HZ = 8000
CLASSES = [
    ClassRow("/t/sound", "All sounds"),
    ClassRow("/t/music", "Music", None, ["/t/sound"]),
    ClassRow("/t/guitar", "Guitar", 0, ["/t/music"]),
    ClassRow("/t/flute", "Flute, whistle", 1, ["/t/music"]),
    ClassRow("/t/dog", "Dog bark", 2, ["/t/sound"]),
]
TAGGER = TaggerConfig(classes=3, channels=[4, 8], rate_hz=RATE_HZ, fft=256, hop=80, bands=16, high_hz=4000.0)
TWO_TOWER = ModelConfig(
    video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio"), head=HeadConfig(hidden=[32], dim=16)
)


def separator_config(kind="soft", source="tagger", **changes) -> SeparatorModelConfig:
    features = {"soft": 3, "one_hot": 3}.get(kind, 8)
    if source == "two_tower":
        features, changes = 16, {"two_tower": TWO_TOWER, **changes}
    if source == "vector":
        features, changes = 12, {"tagger": None, **changes}
    query = QueryConfig(kind, features=features, hidden=8)
    separator = SeparatorConfig(condition_dim=features, channels=[4] * 7, rate_hz=RATE_HZ, fft=256, hop=80)
    values = {"tagger": TAGGER, "classes": CLASSES, "window_s": 0.5, **changes}
    return SeparatorModelConfig(separator=separator, query=query, source=source, **values)


def tiny_separator(kind="soft", source="tagger", *, seed=0, **changes) -> SeparatorModel:
    """Random weights; the tagger is `deaf_to_nothing`."""
    torch.manual_seed(seed)
    model = SeparatorModel(separator_config(kind, source, **changes)).eval()
    if model.tagger is not None:
        always_heard(model.tagger)
    if model.class_features is not None:
        model.class_features.copy_(torch.randn_like(model.class_features))
    return model


def always_heard(tagger: Cnn14, probability: float = 0.9) -> Cnn14:
    """Gives every class this probability, whatever it hears."""
    with torch.no_grad():
        tagger.fc_audioset.weight.zero_()
        tagger.fc_audioset.bias.fill_(torch.tensor(probability).logit().item())
    return tagger


def all_pass(model: SeparatorModel, gain: float = 1.0) -> SeparatorModel:
    """Makes every source `gain` times the mixture, whatever is asked for (but for the highest frequency of all)."""
    with torch.no_grad():
        model.separator.after_conv.weight.zero_()
        level = 30.0 if gain == 1 else torch.tensor(gain).logit().item()
        model.separator.after_conv.bias.copy_(torch.tensor([level, 30.0, 0.0]))
    return model


def save_separator(folder: Path, model: SeparatorModel) -> Path:
    save_model(folder, model, model.config, card="# made for tests\n")
    return folder


def save_tagger(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = TaggerModelConfig(TAGGER, CLASSES)
    save_model(folder, create_tagger(TAGGER), config, card="# random weights, for tests\n")
    return folder
