"""`run.init` from AVC to AVSA: the towers are taken over, the aligner starts anew; anything else stays strict."""

from pathlib import Path

import pytest
import torch
from training_tools import make_config

from avssl import config as configuration
from avssl.errors import ModelError
from avssl.training.loop import Trainer

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def avsa(debug360_shards, tmp_path):
    """A run of AVSA alone, of two steps."""
    tree = configuration.read(CONFIGS / "avsa_curriculum_debug.yaml")
    tree["run"] |= {"dir": str(tmp_path / "avsa"), "tensorboard": False, "checkpoint_every": 2}
    tree["data"] |= {"shards": [str(debug360_shards)], "workers": 0, "batch_size": 2}
    tree["phases"] = [{"name": "avsa", "steps": 2}]
    return tree


def trained(avsa, tmp_path, **alignment):
    """A finished run of AVC, whose aligner has another form."""
    tree = configuration.merged(avsa, {"run": {"dir": str(tmp_path / "avc")}, "model": {"alignment": alignment}})
    tree["phases"] = [{"name": "avc", "steps": 2, "data": {"views": {"views": 1}}, "task": {"mode": "avc"}}]
    trainer = Trainer(make_config(tree), say=lambda line: None)
    trainer.run()
    return trainer


@pytest.mark.parametrize("part", ["", "model"])
def test_avsa_starts_from_the_towers_of_avc(avsa, tmp_path, part):
    source = trained(avsa, tmp_path, depth=None)
    said = []
    init = str(source.folder.path / part)
    trainer = Trainer(make_config(avsa, **{"run.init": init}), say=said.append)
    first, now = source.task.model.state_dict(), trainer.task.model.state_dict()
    towers = [key for key in now if not key.startswith("aligner.")]
    assert towers and all(torch.equal(first[key], now[key]) for key in towers)
    assert not torch.equal(
        first["aligner.video_head.projection.0.weight"], now["aligner.video_head.projection.0.weight"]
    )
    fresh = Trainer(make_config(avsa, **{"run.dir": str(tmp_path / "fresh")}), say=lambda line: None)
    drawn = fresh.task.model.state_dict()
    assert all(torch.equal(drawn[key], now[key]) for key in now if key.startswith("aligner.")), "as without run.init"
    assert any(f"took the model ({len(towers)} tensors), its aligner starts anew" in line for line in said)
    assert trainer.run() == "finished"


def test_an_aligner_of_the_same_form_is_taken(avsa, tmp_path):
    source = trained(avsa, tmp_path)
    trainer = Trainer(make_config(avsa, **{"run.init": str(source.folder.path)}), say=lambda line: None)
    first, now = source.task.model.state_dict(), trainer.task.model.state_dict()
    assert all(torch.equal(first[key], now[key]) for key in now)


@pytest.mark.parametrize("alignment", [{"dim": 64}, {"depth": 3}])
def test_another_form_is_still_refused(avsa, tmp_path, alignment):
    source = trained(avsa, tmp_path, **alignment)
    with pytest.raises(ModelError, match=r"does not fit the model: .*aligner\."):
        Trainer(make_config(avsa, **{"run.init": str(source.folder.path)}), say=lambda line: None)
