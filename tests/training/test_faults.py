"""What the machine does to a run: full disks, lost processes, jumping clocks, too little memory. Each ends in a
sentence that says what to do, and the same command goes on."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill_and_resume
import pytest
from training_tools import changed, make_config, write_config

from avssl.errors import UsageError
from avssl.training.loop import Trainer

SILENT = {"say": lambda line: None}


def train(config, folder, **options):
    """`avssl-train` in a process of its own."""
    command = [sys.executable, "-m", "avssl.cli.train", "--config", str(config), "--run.dir", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, **options)


def assert_one_sentence(done, *words):
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in last for word in words), last


def test_a_full_disk_keeps_what_was_saved_and_the_run_goes_on_later(tree, tmp_path):
    """Files may not grow beyond what the first checkpoint needs: the model's optimiser state comes with the second."""
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "whole")}), **SILENT).run()
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "cut"), "run.steps": 3}), **SILENT).run()
    largest = max(path.stat().st_size for path in (tmp_path / "cut" / "checkpoints").iterdir())
    config = write_config(tree, tmp_path / "config.yaml")
    before = sorted((tmp_path / "cut" / "checkpoints").iterdir())

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    done = train(config, tmp_path / "cut", preexec_fn=small_files_only)
    assert_one_sentence(done, "cannot be written", "run the same command again")
    assert sorted((tmp_path / "cut" / "checkpoints").iterdir()) == before  # none half written
    assert train(config, tmp_path / "cut").returncode == 0
    assert kill_and_resume.compare(tmp_path / "whole", tmp_path / "cut") == []


def test_a_folder_that_cannot_be_written(tree, tmp_path):
    done = train(write_config(tree, tmp_path / "config.yaml"), "/proc/avssl-run")
    assert_one_sentence(done, "/proc/avssl-run: cannot be written")


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_undisturbed(tree, tmp_path):
    config = write_config(changed(tree, **{"run.steps": 400}), tmp_path / "config.yaml")
    folder = tmp_path / "run"
    first = kill_and_resume.start(["--config", str(config), "--run.dir", str(folder)])
    try:
        while first.is_alive() and kill_and_resume.steps_written(folder) < 2:
            time.sleep(0.01)
        before = (folder / "environment.json").read_bytes()
        with pytest.raises(UsageError, match=rf"another process is writing here \(process {first.pid} on "):
            Trainer(make_config(tree, **{"run.dir": str(folder), "run.steps": 400}), **SILENT)
        assert (folder / "environment.json").read_bytes() == before
        step = kill_and_resume.steps_written(folder)
        while first.is_alive() and kill_and_resume.steps_written(folder) < step + 2:
            time.sleep(0.01)
        assert first.is_alive()
    finally:
        first.kill()
        first.join()
    Trainer(make_config(tree, **{"run.dir": str(folder), "run.steps": 400}), **SILENT).close()  # the lock died with it


def test_clocks_that_jump_change_nothing(tree, tmp_path, monkeypatch):
    """The wall clock goes back by ten years and the files seem to come from the future: steps decide, not times."""
    Trainer(make_config(tree, **{"run.dir": str(tmp_path / "whole")}), **SILENT).run()
    Trainer(make_config(tree, **{"run.steps": 6}), **SILENT).run()
    folder = Path(tree["run"]["dir"])
    newest_first = sorted((folder / "checkpoints").glob("step-*"), reverse=True)
    for number, path in enumerate([*newest_first, folder / "config.yaml", folder / "metrics.jsonl"]):
        os.utime(path, (4e9 + number, 4e9 + number))  # the oldest looks newest
    genuine, jumps = time.time, iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: genuine() + 3e8 * (-1) ** next(jumps))
    said = []
    Trainer(make_config(tree), say=said.append).run()
    assert any("continuing after step 6" in line for line in said)
    assert kill_and_resume.compare(tmp_path / "whole", folder) == []


LIMITED = """
import resource, sys
from pathlib import Path
import torch
import avssl.training.learner as learner
genuine = learner.Learner.take_step
def take_step(self, *arguments, **keywords):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    cap = pages * resource.getpagesize() + (8 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    return genuine(self, *arguments, **keywords)
learner.Learner.take_step = take_step
from avssl.cli.train import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_too_little_memory_is_said_with_what_to_lower(tree, tmp_path):
    """8 MiB more than there are when the first step begins: the allocator of torch gives up, really."""
    tree = changed(tree, **{"data.batch_size": 24, "model.video_input.size_px": 64, "model.video_input.resize_px": 64})
    config = write_config(tree, tmp_path / "config.yaml")
    command = [sys.executable, "-c", LIMITED, "--config", str(config), "--run.dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert_one_sentence(done, "out of memory with data.batch_size 24", "run.accumulate", "data.workers")


def children_of(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == pid and b"avssl.cli.train" in (status.parent / "cmdline").read_bytes():
            found.append(int(status.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the ranks in /proc")
@pytest.mark.parametrize("victim", ["the other rank", "the first rank"])
def test_a_killed_rank_ends_the_others_within_seconds(tree, tmp_path, victim):
    """Two processes of `run.devices: 2`; one is killed in the middle. Nobody waits for it, and both can go on later."""
    folder = tmp_path / "run"
    config = write_config(changed(tree, **{"run.devices": 2, "run.steps": 10_000}), tmp_path / "config.yaml")
    command = [sys.executable, "-m", "avssl.cli.train", "--config", str(config), "--run.dir", str(folder)]
    with (tmp_path / "log").open("w") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        first = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
    try:
        end = time.monotonic() + 600  # of patience with a busy machine
        saved = folder / "checkpoints" / "step-00000003.pt"  # whole: it is renamed to that
        while first.poll() is None and not saved.exists() and time.monotonic() < end:
            time.sleep(0.05)
        (other,) = children_of(first.pid)
        killed, left = (other, first.pid) if victim == "the other rank" else (first.pid, other)
        os.kill(killed, signal.SIGKILL)
        started = time.monotonic()
        if left == first.pid:
            assert first.wait(timeout=60) == 1
        else:
            first.wait()
            while Path(f"/proc/{other}").exists() and time.monotonic() < started + 60:
                time.sleep(0.05)
            assert not Path(f"/proc/{other}").exists()
        said = (tmp_path / "log").read_text()
        assert "another of the 2 processes of this run has ended" in said, said
        assert "Traceback" not in said
    finally:
        first.kill()
        first.wait()
    steps = kill_and_resume.steps_written(folder)
    checkpoints = sorted((folder / "checkpoints").glob("step-*.pt"))
    assert checkpoints and json.loads((folder / "environment.json").read_text())["starts"]
    Trainer(make_config(tree, **{"run.dir": str(folder), "run.steps": steps + 1}), **SILENT).run()
