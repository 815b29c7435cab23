"""`run.init`: what a new run takes from a model folder, a run or a checkpoint, what it leaves, and what it says."""

import shutil
from pathlib import Path

import pytest
import torch
from training_tools import make_config, metrics_of

from avssl.errors import ConfigError, ModelError
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.training.loop import Trainer


@pytest.fixture
def source(tree):
    """A finished run of three steps, and the tree of one that is to start from it."""
    folder = tree["run"]["dir"] + "_source"
    trainer = Trainer(make_config(tree, **{"run.steps": 3, "run.dir": folder}), say=lambda line: None)
    trainer.run()
    return trainer


def start(tree, init, **changes):
    said = []
    trainer = Trainer(make_config(tree, **{"run.init": str(init), "run.seed": 9, **changes}), say=said.append)
    return trainer.task.state_dict(), [line for line in said if line.startswith("run.init")]


def equal_keys(state, other):
    return {key for key in state.keys() & other.keys() if torch.equal(state[key], other[key])}


@pytest.mark.parametrize("what", ["run", "checkpoint"])
def test_a_run_gives_its_model_banks_and_z(tree, source, what):
    path = source.folder.path if what == "run" else source.folder.checkpoints / "step-00000003.pt"
    state, said = start(tree, path)
    assert equal_keys(state, source.task.state_dict()) == set(state)
    assert state["partition"] > 0
    assert len(said) == 2
    assert "took the model (" in said[0] and "step-00000003.pt" in said[0]
    assert said[1].endswith("took video_bank.memory, audio_bank.memory, partition") or "took partition" in said[1]


@pytest.mark.parametrize("name", ["model", "model/model.safetensors"])
def test_a_model_folder_gives_its_model(tree, source, name):
    state, said = start(tree, source.folder.path / name)
    assert equal_keys(state, source.task.state_dict()) == {key for key in state if key.startswith("model.")}
    assert "took the model (" in said[0]
    assert "starts anew:" in said[1] and "video_bank.memory" in said[1] and "partition" in said[1]


def test_banks_of_other_shards_are_left(tree, source, debug_shards, tmp_path):
    other = tmp_path / "other"
    build(list_sources(debug_shards.parent / "world"), other, BuildOptions(clip_s=1.0, short_side_px=64))
    state, said = start(tree, source.folder.path, **{"data.shards": [str(other)]})
    assert equal_keys(state, source.task.state_dict()) == {key for key in state if key.startswith("model.")}
    assert "left" in said[1] and "audio_bank.memory (of other shards)" in said[1]
    assert "starts anew:" in said[2]


def test_state_that_the_new_task_has_not_is_left_and_said(tree, source):
    state, said = start(tree, source.folder.path, **{"task.loss": "softmax"})
    assert "partition" not in state
    assert any("left partition (not in this task)" in line for line in said)
    assert torch.equal(state["video_bank.memory"], source.task.state_dict()["video_bank.memory"])


def test_the_start_is_kept_over_kills_and_the_source_may_then_go(tree, source):
    """The checkpoint of the new run is what counts once there is one."""
    changes = {"run.init": str(source.folder.path), "run.dir": tree["run"]["dir"]}
    whole = Trainer(make_config(tree, **changes, **{"run.steps": 4}), say=lambda line: None)
    whole.run()
    state = whole.task.state_dict()
    shutil.rmtree(tree["run"]["dir"])
    Trainer(make_config(tree, **changes, **{"run.steps": 2}), say=lambda line: None).run()
    shutil.rmtree(source.folder.path)
    again = Trainer(make_config(tree, **changes, **{"run.steps": 4}), say=lambda line: None)
    again.run()
    assert equal_keys(again.task.state_dict(), state) == set(state)
    assert len(metrics_of(tree["run"]["dir"])) == 4


def test_a_model_of_another_shape_is_refused_by_name(tree, source):
    with pytest.raises(
        ModelError, match=r"run\.init .*step-00000003\.pt: does not fit the model: .*video_head\S+ is \[32, 64\]"
    ):
        start(tree, source.folder.path, **{"model.head.dim": 16})


def test_what_is_nothing_to_start_from_is_refused(tree, source, tmp_path):
    for content, message in (
        ("nowhere", "is no model folder"),
        ("empty", "is no model folder"),
        ("bare_run", "a run folder without a checkpoint yet"),
        ("notes.txt", "is no checkpoint of avssl-train, or damaged"),
    ):
        path = tmp_path / content
        if content == "empty":
            path.mkdir()
        elif content == "bare_run":
            path.mkdir()
            shutil.copy(source.folder.config, path)
        elif content == "notes.txt":
            path.write_text("hello")
        with pytest.raises((ConfigError, ModelError), match=message):
            start(tree, path)
    cut = tmp_path / "cut.pt"
    whole = (source.folder.checkpoints / "step-00000003.pt").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        start(tree, cut)
    assert not Path(tree["run"]["dir"]).exists(), "nothing is left behind by a refusal"
