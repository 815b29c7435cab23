"""AVSA runs: two phases with batches of their own, resumed exactly; what the model folder keeps."""

import json
from pathlib import Path

import pytest
import torch
from kill_and_resume import compare
from training_tools import make_config

import avssl
from avssl import config as configuration
from avssl.errors import ConfigError
from avssl.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def curriculum(debug360_shards, tmp_path):
    tree = configuration.read(CONFIGS / "avsa_curriculum_debug.yaml")
    tree["run"] |= {"dir": str(tmp_path / "run"), "log_rows": True, "tensorboard": False, "checkpoint_every": 1}
    tree["data"] |= {"shards": [str(debug360_shards)], "workers": 0}
    tree["phases"][0]["steps"], tree["phases"][1]["steps"] = 2, 3
    tree["optim"]["lr"] = 1e-4
    return tree


class KilledError(Exception):
    pass


def run(tree, die_at=None):
    trainer = Trainer(make_config(tree), say=lambda line: None)

    def advance():
        if trainer.step == die_at:
            raise KilledError

    if die_at is None:
        assert trainer.run() == "finished"
    else:
        with pytest.raises(KilledError):
            trainer.run(advance)
    return trainer


def test_a_curriculum_resumes_exactly_on_both_sides_of_its_border(curriculum, tmp_path):
    whole = run(curriculum | {"run": curriculum["run"] | {"dir": str(tmp_path / "whole")}})
    for step in (1, 2, 4):
        run(curriculum, die_at=step)
    run(curriculum)
    assert compare(tmp_path / "whole", tmp_path / "run") == []
    rows = [json.loads(line)["rows"] for line in whole.folder.rows.read_text().splitlines()]
    assert [len(of_step) for of_step in rows] == [8, 8, 4, 4, 4]
    records = [json.loads(line) for line in whole.folder.metrics.read_text().splitlines()]
    assert ["top1_v2a" in r for r in records] == [True, True, False, False, False]
    assert all({"beats_easy", "beats_hard", "loss_video", "loss_audio"} <= set(r) for r in records[2:])


def test_the_model_folder_keeps_the_aligner_and_how_views_are_made(curriculum):
    curriculum["phases"] = curriculum["phases"][1:]
    curriculum["phases"][0]["steps"] = 1
    switches = dict.fromkeys(("latitude", "spacing", "projection", "rotation", "flip"), "released")
    curriculum["data"]["views"]["switches"] = curriculum["model"]["alignment"]["switches"] = switches
    trainer = run(curriculum)
    model = avssl.load(trainer.folder.model).model
    assert model.config.alignment.switches.rotation == "released"
    torch.testing.assert_close(model.aligner.state_dict(), trainer.task.model.aligner.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phases": {"data": {"clips": 2}}}, r"data\.clips cannot differ between phases"),
        ({"phases": {"data": {"batch_size": 5}}, "run": {"accumulate": 2}}, r"phases\[1\]\.data\.batch_size \(5\)"),
        ({"phases": {"data": {"batch_size": 0}}}, r"phases\[1\]\.data\.batch_size is 0"),
        ({"phases": {"data": {"views": {"views": 1}}}}, r"phases\[1\]\.task\.mode is 'avsa'"),
        ({"phases": {"data": {"views": {"view": 1}}}}, r"phases\[1\]\.data\.views\.view: unknown key"),
    ],
)
def test_phases_with_impossible_data_are_refused_by_key(curriculum, change, message):
    curriculum["run"] |= change.get("run", {})
    curriculum["phases"][1] |= change["phases"]
    with pytest.raises(ConfigError, match=message):
        make_config(curriculum)


def test_a_continued_run_keeps_the_batches_of_its_phases(curriculum):
    run(curriculum, die_at=1)
    curriculum["phases"][0]["data"]["batch_size"] = 4
    with pytest.raises(ConfigError, match=r"phases\[0\]\.data\.batch_size 8, now it is 4"):
        Trainer(make_config(curriculum), say=lambda line: None)


def test_another_batch_size_in_a_later_phase_is_free_until_it_is_entered(curriculum):
    run(curriculum, die_at=1)
    curriculum["phases"][1]["data"] = {"batch_size": 3}
    trainer = run(curriculum)
    assert trainer.loader.position == 2 * 8 + 3 * 3
