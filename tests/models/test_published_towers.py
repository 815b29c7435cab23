"""The AVID and AVSA networks: parameter counts, and the numbers of the published implementations."""

import numpy as np
import pytest
import torch
from oracle_rule import assert_near, oracle, rule_input, rule_weight

from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower

# Published key -> ours: only prefixes differ.
PREFIXES = {
    "video_model.": "video_tower.",
    "audio_model.": "audio_tower.",
    "video_proj.": "video_head.",
    "audio_proj.": "audio_head.",
}
PUBLISHED = {ours: published for published, ours in PREFIXES.items()}


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


def avid_config() -> ModelConfig:
    return ModelConfig(video=TowerConfig("avid_r2plus1d_18"), audio=TowerConfig("avid_audio_cnn9"))


def avsa_config() -> ModelConfig:
    return ModelConfig(video=TowerConfig("avsa_r2plus1d_18"), audio=TowerConfig("avsa_audio_cnn9"))


def fill_by_rule(model: TwoTower, parts: tuple[str, ...]) -> int:
    """Load the published layout's rule weights into `parts`; the number of published entries."""
    state = {}
    for key, tensor in model.state_dict().items():
        part = key.split(".")[0] + "."
        if part in parts:
            state[key] = rule_weight(PUBLISHED[part] + key.removeprefix(part), tensor)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith(("front_end.", "video_head.", "audio_head.")) for key in missing)
    return len(state)


def test_parameter_counts():
    avid, avsa = TwoTower(avid_config()), TwoTower(avsa_config())
    assert parameters(avid.video_tower) == parameters(avsa.video_tower) == 15_379_136
    assert parameters(avid.audio_tower) == 4_725_696
    assert parameters(avsa.audio_tower) == 4_735_104
    assert parameters(avid) == 21_286_784
    assert parameters(avsa.video_tower) + parameters(avsa.audio_tower) == 20_114_240


@torch.inference_mode()
def test_avid_matches_the_published_implementation():
    published = oracle("avid")
    model = TwoTower(avid_config()).eval()
    assert fill_by_rule(model, tuple(PUBLISHED)) == published["keys"] == 267
    first = model.video_tower.conv1[0].weight.flatten()[:8]
    np.testing.assert_array_equal(first.numpy(), published["first_weight"])

    video, spectrogram = rule_input("input.video", (2, 3, 8, 112, 112)), rule_input("input.audio", (2, 1, 200, 257))
    video_feature, audio_feature = model.video_features(video), model.audio_tower(spectrogram)
    assert_near(video_feature, published["video_feature"])
    assert_near(audio_feature, published["audio_feature"])
    assert_near(model.forward(video=video)["video"], published["video_embedding"])
    assert_near(model.audio_head(audio_feature), published["audio_embedding"])


@torch.inference_mode()
def test_avsa_matches_the_published_implementation():
    published = oracle("avsa")
    model = TwoTower(avsa_config()).eval()
    assert fill_by_rule(model, ("video_tower.", "audio_tower.")) == published["keys"] == 255
    assert_near(model.video_tower(rule_input("input.video", (2, 3, 8, 112, 112))), published["video_feature"])
    assert_near(model.audio_tower(rule_input("input.audio", (2, 4, 100, 128))), published["audio_feature"])


@torch.inference_mode()
@pytest.mark.parametrize(
    ("config", "video", "audio"),
    [
        (avid_config, {"conv1": (64, 8, 56, 56), "conv3x": (128, 4, 28, 28), "conv5x": (512, 1, 7, 7)}, {}),
        (avsa_config, {}, {"block1": (64, 50, 64), "block3": (256, 13, 16), "block4": (512, 13, 16)}),
    ],
)
def test_stage_sizes(config, video, audio):
    model = TwoTower(config()).eval()
    side = 224 if video else 112
    stages = model.video_tower.feature_stages(torch.zeros(1, 3, 8, side, side))
    assert list(stages) == ["conv1", "conv2x", "conv3x", "conv4x", "conv5x", "pool"]
    assert {name: tuple(stages[name].shape[1:]) for name in video} == video
    if audio:
        stages = model.audio_tower.feature_stages(torch.zeros(1, 4, 100, 128))
        assert {name: tuple(stages[name].shape[1:]) for name in audio} == audio
