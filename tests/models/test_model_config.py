"""ModelConfig: facts fill what is left out, round trip through plain values, errors name the key."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch

from avssl.errors import ConfigError, ModelError
from avssl.models.config import FrontEndConfig, HeadConfig, ModelConfig, TowerConfig, VideoInput
from avssl.models.registry import tower_facts
from avssl.models.two_tower import TwoTower


def tiny_config(**changes) -> ModelConfig:
    return ModelConfig(**{"video": TowerConfig("tiny_video"), "audio": TowerConfig("tiny_audio"), **changes})


def test_inputs_left_out_are_those_of_the_towers_and_not_shared():
    one, other = tiny_config(), tiny_config()
    assert one.video_input == tower_facts("video", "tiny_video").input
    assert one.audio_input == tower_facts("audio", "tiny_audio").input
    one.video_input.frames = 99
    one.audio_input.front_end.kwargs["bands"] = 99
    assert other.video_input.frames != 99 and other.audio_input.front_end.kwargs["bands"] != 99
    assert ModelConfig(video=TowerConfig("tiny_video")).audio_input is None


def test_an_input_given_in_part_is_the_towers_otherwise():
    facts = tower_facts("video", "tiny_video").input
    made = ModelConfig.from_dict({"video": {"name": "tiny_video"}, "video_input": {"size_px": 48}})
    assert made.video_input == dataclasses.replace(facts, size_px=48)
    assert facts.size_px == 64
    assert ModelConfig.from_dict(made.to_dict()) == made


def test_a_front_end_that_is_not_named_is_the_towers():
    made = {"audio": {"name": "tiny_audio"}}
    facts = tower_facts("audio", "tiny_audio").input
    part = ModelConfig.from_dict({**made, "audio_input": {"duration_s": 1.0, "front_end": {"kwargs": {"bands": 32}}}})
    assert part.audio_input.duration_s == 1.0 and part.audio_input.rate_hz == facts.rate_hz
    assert part.audio_input.front_end == FrontEndConfig("log_mel", {**facts.front_end.kwargs, "bands": 32})
    other = ModelConfig.from_dict({**made, "audio_input": {"front_end": {"name": "avid_spectrogram"}}})
    assert other.audio_input.front_end == FrontEndConfig("avid_spectrogram")
    named = ModelConfig.from_dict({**made, "audio_input": {"front_end": {"name": "log_mel", "kwargs": {"bands": 32}}}})
    assert named.audio_input.front_end.kwargs == {"bands": 32}, "what a saved config says is not added to"


def test_round_trip_through_json():
    config = tiny_config(
        video_input=VideoInput(fps=10, frames=4, size_px=64, resize_px=80, mean=(0.1, 0.2, 0.3), std=(1, 1, 1)),
        head=HeadConfig(hidden=[], dim=32),
    )
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vidoe": None}, r"model\.vidoe: unknown key; did you mean 'model\.video'"),
        ({"video": {"nam": "tiny_video"}}, r"model\.video\.nam: unknown key; did you mean 'model\.video\.name'"),
        ({"video": {}}, r"model\.video\.name: missing"),
        ({"video": {"name": "tiny_vidoe"}}, r"tiny_vidoe.*did you mean 'tiny_video'"),
        ({"head": {"dim": "128"}}, r"model\.head\.dim: expected integer"),
        ({"video": None, "video_input": {"fps": 16}}, r"model\.video_input\.frames: missing"),
        (
            {"video_input": {"size": 16}},
            r"model\.video_input\.size: unknown key; did you mean 'model\.video_input\.size_px",
        ),
        ({"audio_input": {"front_end": {"stats": 1}}}, r"model\.audio_input\.front_end\.stats: unknown key"),
    ],
)
def test_errors_name_the_key(change, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict({**tiny_config().to_dict(), **change})


def test_a_crop_larger_than_the_resized_frame_is_refused():
    with pytest.raises(ConfigError, match="resize_px 64 is smaller"):
        VideoInput(fps=16, frames=8, size_px=80, resize_px=64, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_either_tower_may_be_absent():
    video_only = TwoTower(ModelConfig(video=TowerConfig("tiny_video")))
    assert video_only.audio_tower is video_only.audio_head is video_only.front_end is None
    assert set(video_only(video=torch.zeros(2, 3, 8, 64, 64))) == {"video"}
    with pytest.raises(ModelError, match="no audio tower"):
        video_only(audio=torch.zeros(2, 1, 48000))
    audio_only = TwoTower(ModelConfig(audio=TowerConfig("tiny_audio")))
    assert audio_only(audio=torch.zeros(2, 1, 48000))["audio"].shape == (2, 128)
    with pytest.raises(ConfigError, match="neither"):
        TwoTower(ModelConfig())


def test_channels_are_said_once():
    config = tiny_config()
    config.audio_input.channels = 4
    assert TwoTower(config)(audio=torch.zeros(2, 4, 48000))["audio"].shape == (2, 128)
    config.audio.kwargs["in_channels"] = 4
    with pytest.raises(ConfigError, match=r"audio_input\.channels"):
        TwoTower(config)


def test_files_to_start_from_are_left_out_of_what_is_kept():
    config = tiny_config()
    config.video.weights = "start.pth"
    config.audio_input.front_end = FrontEndConfig("log_mel", stats_file="stats.npz")
    kept = config.without_files()
    assert kept.video.weights is None and kept.audio_input.front_end.stats_file is None
    assert config.video.weights == "start.pth"


def test_a_model_has_an_embedding_and_a_gradient_for_both():
    torch.manual_seed(0)
    model = TwoTower(tiny_config(head=HeadConfig(hidden=[64], dim=16)))
    embeddings = model(video=torch.randn(4, 3, 8, 64, 64), audio=torch.randn(4, 1, 48000))
    assert {name: tuple(value.shape) for name, value in embeddings.items()} == {"video": (4, 16), "audio": (4, 16)}
    (embeddings["video"] * embeddings["audio"]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_configuring_a_model_needs_no_torch():
    code = "import sys; from avssl.models.config import ModelConfig; ModelConfig(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
