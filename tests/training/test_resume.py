"""Killed, stopped, damaged: the same command goes on, and what it computes is what an undisturbed run computes."""

import contextlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import kill_and_resume
import pytest
from training_tools import changed, make_config, metrics_of, write_config

from avssl.training.loop import Trainer


@pytest.mark.parametrize(("workers", "kills"), [(0, 6), (1, 4)])
def test_kills_leave_no_trace(tree, tmp_path, workers, kills):
    """Rows, losses and all tensors (weights, optimiser, banks, Z), with and without worker processes that prefetch."""
    tree = changed(tree, **{"data.workers": workers, "run.steps": 11})
    config = write_config(tree, tmp_path / "config.yaml")
    differences, killed = kill_and_resume.check(config, tmp_path, steps=11, kills=kills, seed=workers)
    assert not differences
    assert killed


def test_half_a_log_window_survives(tree, tmp_path):
    """Checkpoint at step 3, log line at step 5: the line still stands for all five steps."""
    tree = changed(tree, **{"run.log_every": 5, "run.steps": 10})
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "whole")}), say=lambda line: None).run()
    interrupted = Trainer(make_config(tree), say=lambda line: None)

    class KilledError(Exception):
        pass

    def die_after_step_4():
        if interrupted.step == 4:
            raise KilledError

    with pytest.raises(KilledError):
        interrupted.run(die_after_step_4)
    said = []
    Trainer(make_config(tree), say=said.append).run()
    assert any("continuing after step 3" in line for line in said)
    assert metrics_of(tree["run"]["dir"]) == metrics_of(tmp_path / "whole")


def test_a_damaged_last_checkpoint_costs_steps_only(tree, tmp_path):
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "whole")}), say=lambda line: None).run()
    Trainer(make_config(tree, **{"run.steps": 6}), say=lambda line: None).run()
    last = Path(tree["run"]["dir"]) / "checkpoints" / "step-00000006.pt"
    last.write_bytes(last.read_bytes()[:-100])
    said = []
    Trainer(make_config(tree), say=said.append).run()
    assert any("damaged checkpoint passed over" in line for line in said)
    assert any("continuing after step 3" in line for line in said)
    assert kill_and_resume.compare(tmp_path / "whole", Path(tree["run"]["dir"])) == []


def descendants(pid):
    """The processes below one, as /proc has them."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the process table from /proc")
def test_workers_end_with_a_killed_run(tree, tmp_path):
    tree = changed(tree, **{"data.workers": 1, "run.steps": 500})
    config = write_config(tree, tmp_path / "config.yaml")
    process = kill_and_resume.start(["--config", str(config), "--run.dir", str(tmp_path / "run")])
    while process.is_alive() and kill_and_resume.steps_written(tmp_path / "run") < 2:
        time.sleep(0.01)
    below = descendants(process.pid)
    assert len(below) >= 2  # the worker, and the server that it was forked from
    process.kill()
    process.join()
    end = time.monotonic() + 30
    while (left := {pid for pid in below if Path(f"/proc/{pid}").exists()}) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_writes_a_checkpoint_and_exits_with_75(tree, tmp_path, number):
    config = write_config(changed(tree, **{"run.steps": 200, "run.checkpoint_every": 1000}), tmp_path / "config.yaml")
    folder = tmp_path / "stopped"
    argv = ["--config", str(config), "--run.dir", str(folder)]
    process = kill_and_resume.start(argv)
    while process.is_alive() and kill_and_resume.steps_written(folder) < 2:
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 75, (tmp_path / "stopped.log").read_text()
    step = kill_and_resume.steps_written(folder)
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == [f"step-{step:08d}.pt"]
    again = kill_and_resume.start([*argv[:2], "--run.steps", str(step + 1), *argv[2:]])
    again.join()
    assert again.exitcode == 0
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()] == list(range(1, step + 2))


def test_no_process_is_left_behind():
    assert multiprocessing.active_children() == []
