"""A run folder is continued by the same config only; the refusal names the key."""

import json

import pytest
from training_tools import make_config

from avssl.errors import ConfigError, UsageError
from avssl.training.run_folder import RunFolder


@pytest.fixture
def started(tree):
    folder = RunFolder(tree["run"]["dir"])
    folder.check(make_config(tree))
    folder.write_start(make_config(tree), "cpu", 1)
    return folder


def test_the_same_config_continues(started, tree):
    started.check(make_config(tree))
    started.write_start(make_config(tree), "cpu", 1)
    starts = json.loads(started.environment.read_text())["starts"]
    assert len(starts) == 2
    assert starts[0]["packages"]["torch"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_size", 4),
        ("data.seed", 1),
        ("data.video.fps", 4.0),
        ("data.augment", None),
        ("model.head.dim", 16),
        ("task.negatives", 8),
        ("optim.lr", 1.0),
        ("run.seed", 5),
        ("run.accumulate", 2),
    ],
)
def test_what_changes_the_computation_is_refused(started, tree, key, value):
    changes = {key: value}
    if key == "data.video.fps":
        changes["model.video_input.fps"] = value
    with pytest.raises(ConfigError, match=f"was started with {key}"):
        started.check(make_config(tree, **changes))


@pytest.mark.parametrize(
    ("key", "value"), [("run.steps", 99), ("data.workers", 3), ("run.log_every", 7), ("data.shards", ["elsewhere"])]
)
def test_what_changes_its_course_only_is_allowed(started, tree, key, value):
    started.check(make_config(tree, **{key: value}))


def test_a_folder_of_something_else_is_left_alone(tree, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    RunFolder(folder).check(make_config(tree))  # empty: free to use
    (folder / "cat.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match="not a run folder"):
        RunFolder(folder).check(make_config(tree))


def test_leftovers_of_a_kill_are_swept_out(started, tree):
    started.checkpoints.mkdir()
    leftover = started.checkpoints / ".step-00000005.pt.123.tmp"
    leftover.write_bytes(b"half")
    started.write_start(make_config(tree), "cpu", 1)
    assert not leftover.exists()
