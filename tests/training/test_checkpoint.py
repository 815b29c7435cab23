"""Checkpoints are whole or absent; damaged ones are passed over, loudly; nothing is unpickled."""

import pickle

import pytest
import torch

from avssl.errors import ModelError
from avssl.training.checkpoint import Checkpoints, damage, load


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def save(checkpoints, step, best=False):
    return checkpoints.save(step, {"weights": torch.full((1000,), float(step))}, best=best)


def test_the_last_few_and_the_best_are_kept(checkpoints):
    for step in (5, 10, 15, 20):
        save(checkpoints, step, best=step == 10)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == [
        "best.pt",
        "step-00000015.pt",
        "step-00000020.pt",
    ]
    assert load(checkpoints.folder / "best.pt")["step"] == 10
    save(checkpoints, 25, best=True)
    assert load(checkpoints.folder / "best.pt")["step"] == 25


@pytest.mark.parametrize("fault", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(checkpoints, fault):
    good, bad = save(checkpoints, 5), save(checkpoints, 10)
    content = bytearray(bad.read_bytes())
    if fault == "cut":
        content = content[: len(content) // 2]
    elif fault == "flipped":
        content[content.index(torch.full((4,), 10.0).numpy().tobytes()) + 9] ^= 1
    else:
        content = b""
    bad.write_bytes(content)
    assert damage(bad) is not None and damage(good) is None
    said = []
    assert checkpoints.latest(said.append) == good
    assert "step-00000010.pt" in said[0]
    good.write_bytes(b"")
    with pytest.raises(ModelError, match="all 2 checkpoints are damaged"):
        checkpoints.latest(said.append)


def test_half_written_files_do_not_count(checkpoints):
    assert checkpoints.latest(print) is None
    save(checkpoints, 5)
    (checkpoints.folder / ".step-00000010.pt.77.tmp").write_bytes(b"half")
    assert checkpoints.latest(print).name == "step-00000005.pt"


def test_objects_are_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "step-00000001.pt"
    torch.save({"format": "avssl-checkpoint", "x": Evil()}, path)
    with pytest.raises(ModelError, match="cannot be read"):
        load(path)
    path.write_bytes(pickle.dumps({}, protocol=2))
    with pytest.raises(ModelError):
        load(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ModelError, match="not a checkpoint of avssl-train"):
        load(path)


def test_a_mapped_checkpoint_is_the_same_and_needs_the_file_no_longer_than_its_name(checkpoints):
    state = {"bank": torch.randn(1000, 8), "half": torch.randn(5).bfloat16(), "step_count": 3}
    path = checkpoints.save(1, state, best=False)
    whole, mapped = load(path), load(path, mapped=True)
    path.unlink()
    assert whole.keys() == mapped.keys() and mapped["step_count"] == 3
    assert torch.equal(whole["bank"], mapped["bank"]) and torch.equal(whole["half"], mapped["half"])
