"""Two processes of a real launcher, end to end: the metrics of one process."""

import os
import subprocess
import sys

import pytest
from training_tools import changed, make_config, metrics_of, write_config

from avssl.training.loop import Trainer

# Sums in float32 differ by the order of their terms; the small learning rate keeps that small over the steps.
KEYS = {
    "bank": {"task.loss": "nce", "task.targets": "bank"},
    "batch": {"task.loss": "softmax", "task.targets": "batch", "run.accumulate": 2},
}

FIRST = {"name": "first", "steps": 2}
SECOND = {"name": "second", "steps": 3, "task": {"temperature": 0.2}, "optim": {"weight_decay": 0.0}}
PHASES = {"optim.lr": 1e-5, "run.steps": None, "phases": [FIRST, SECOND]}
SHORTER = [FIRST, {**SECOND, "steps": 1}]


def command(config, *launcher):
    return [sys.executable, *launcher, "-m", "avssl.cli.train", "--config", str(config)]


def run(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=300)


def assert_equal_metrics(ours, theirs):
    assert [record["step"] for record in ours] == [record["step"] for record in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.pop("phase", None) == other.pop("phase", None)
        assert mine.pop("grad_norm") == pytest.approx(other.pop("grad_norm"), rel=1e-2)
        assert mine == pytest.approx(other, rel=2e-4, abs=1e-5)


def test_torchrun_with_two_processes_equals_one(tree, tmp_path):
    """Cross-rank batch norm, bank, Z, order of rows, two phases; stopped in the second and continued by the other
    number of ranks."""
    tree = changed(tree, **KEYS["bank"], **PHASES)
    one = Trainer(make_config(tree, **{"run.dir": str(tmp_path / "one")}), say=lambda line: None)
    one.run()
    folder = tmp_path / "two"
    config = write_config(changed(tree, **{"run.dir": str(folder), "phases": SHORTER}), tmp_path / "two.yaml")
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "127.0.0.1:0"]
    result = run(*command(config, *launcher))
    assert result.returncode == 0, result.stderr
    Trainer(make_config(tree, **{"run.dir": str(folder)}), say=lambda line: None).run()
    assert_equal_metrics(metrics_of(folder), metrics_of(tmp_path / "one"))
    assert (folder / "rows.jsonl").read_text().count("\n") == 5


def test_own_launcher_and_sharded_parameters_equal_one_process(tree, tmp_path):
    """`run.devices: 2` starts the second process by itself; FSDP, in-batch targets, two micro-batches, two phases; one
    process continues from the checkpoint of the sharded run."""
    tree = changed(tree, **KEYS["batch"], **PHASES)
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "one")}), say=lambda line: None).run()
    folder = tmp_path / "two"
    sharded = {"run.dir": str(folder), "run.devices": 2, "run.strategy": "fsdp", "phases": SHORTER}
    result = run(*command(write_config(changed(tree, **sharded), tmp_path / "two.yaml")))
    assert result.returncode == 0, result.stderr
    Trainer(make_config(tree, **{"run.dir": str(folder)}), say=lambda line: None).run()
    assert_equal_metrics(metrics_of(folder), metrics_of(tmp_path / "one"))
