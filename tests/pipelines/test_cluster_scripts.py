"""Scripts of pipelines/slurm, torchrun and kubernetes. Under a real Slurm they run in tests/slurm (make test-slurm)."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from avssl import config as configuration
from avssl.cli.train import read_config
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.synthetic.world import WorldConfig, write_world
from avssl.training.config import TrainConfig

PIPELINES = Path(__file__).parents[2] / "pipelines"
SCRIPTS = sorted([*PIPELINES.glob("slurm/*.sbatch"), *PIPELINES.glob("torchrun/*.sh")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_say_how_they_are_called(path):
    assert len(SCRIPTS) == 6
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head = path.read_text().split("set -")[0]
    assert path.name in head


def test_the_commands_of_cluster_md_name_scripts_and_configs_that_exist():
    text = (PIPELINES.parent / "docs" / "cluster.md").read_text()
    for name in re.findall(r"(?:pipelines|configs|eval|docs)/[\w/.-]+\.(?:sbatch|sh|py|yaml|md)", text):
        assert (PIPELINES.parent / name).is_file(), name


def test_the_kubernetes_job_starts_what_avssl_train_understands():
    service, job = yaml.safe_load_all((PIPELINES / "kubernetes" / "pretrain.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"] == service["metadata"]["name"]
    assert pod["subdomain"] == service["metadata"]["name"] and pod["restartPolicy"] == "Never"
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    launch, train = (
        container["args"][: container["args"].index("-m")],
        container["args"][container["args"].index("-m") :],
    )
    assert f"--nnodes={spec['completions']}" in launch and spec["parallelism"] == spec["completions"]
    assert train[:2] == ["-m", "avssl.cli.train"]
    path = next(word.partition("=")[2] for word in train if word.startswith("--config="))
    config = read_config(str(PIPELINES.parent / path), train[3:])
    assert isinstance(config, TrainConfig) and len(config.data.shards[0].split()) == 2
    assert config.data.cache.size_gb * 1e9 < 820 * 2**30


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A config file of a run of many short steps on tiny towers."""
    folder = tmp_path_factory.mktemp("launch")
    write_world(WorldConfig(clips=8, classes=4, duration_s=1.0, size_px=32, seed=1), folder / "world")
    build(list_sources(folder / "world"), folder / "shards", BuildOptions(clip_s=1.0, short_side_px=32))
    tree = configuration.read(PIPELINES.parent / "configs" / "tiny.yaml")
    tree["run"] = {"dir": str(folder / "run"), "steps": 100_000, "device": "cpu", "log_every": 1, "tensorboard": False}
    tree["data"] |= {"shards": [str(folder / "shards")], "batch_size": 4, "workers": 0, "pixels": "rgb24"}
    tree["data"] |= {"video": {"frames": 2, "fps": 4}, "audio": {"duration_s": 0.5}}
    tree["model"]["video_input"] |= {"frames": 2, "size_px": 32, "resize_px": 36}
    tree["model"]["audio_input"] = {"duration_s": 0.5}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def steps_of(run):
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def wait_for(is_true, process):
    for _ in range(12_000):
        if is_true():
            return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise TimeoutError("ten minutes")


def checkpoint_of(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step-*.pt"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_one_node_script_stops_with_75_when_asked(recipe, tmp_path, number):
    """Two processes under torchrun; the request may come twice, and both ranks leave after the checkpoint."""
    run = tmp_path / "run"
    command = [str(PIPELINES / "torchrun" / "one_node.sh"), "--config", str(recipe), "--run.dir", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PER_NODE": "2", "PYTHON": sys.executable}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        wait_for(lambda: steps_of(run) > 2, process)
        process.send_signal(number)
        process.send_signal(number)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 75, errors
    steps = steps_of(run)
    assert checkpoint_of(run) == [f"step-{steps:08d}.pt"]


def test_a_failure_under_the_launcher_is_a_failure(recipe, tmp_path):
    command = [sys.executable, PIPELINES / "torchrun" / "launch.py", "--standalone", "--nproc-per-node", "1"]
    words = ["-m", "avssl.cli.train", "--config", recipe, "--run.dir", tmp_path / "run", "--data.shards", '["nothing"]']
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 1 and "nothing: no such folder of shards" in done.stderr


def test_submit_runs_the_command_as_a_job_and_puts_it_back_when_it_is_stopped(recipe, tmp_path):
    """submitit's own executor of this machine: the job is told to stop once, goes on by itself, and ends."""
    import submitit

    run = tmp_path / "run"
    words = ["--config", recipe, "--run.dir", run, "--run.steps", "200", "--submit", "where=local,hours=1"]
    with (tmp_path / "said").open("w") as said:  # the job keeps what it is given: a pipe would not end before it
        code = subprocess.call([sys.executable, "-m", "avssl.cli.train", *map(str, words)], stdout=said, stderr=said)
    text = (tmp_path / "said").read_text()
    assert code == 0, text
    number, logs = re.search(r"job (\S+) submitted; .* its log is in (\S+)", text).groups()
    job = submitit.LocalJob(folder=logs, job_id=number)
    wait_for(lambda: steps_of(run) > 2, None)
    task = Path(f"/proc/{number}/task/{number}/children").read_text().split()[0]
    os.kill(int(task), signal.SIGUSR2)  # what submitit has the scheduler send
    wait_for(lambda: steps_of(run) == 200, None)
    assert job.result() == "finished"
    starts = json.loads((run / "environment.json").read_text())["starts"]
    assert len(starts) == 2
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == list(
        range(1, 201)
    )


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("where=moon", "where=moon: choose slurm or local"),
        ("nodes", "'nodes' is no key=value"),
        ("where=local,processes=2", "starts one process"),
        ("nodes=two", "nodes"),
    ],
)
def test_what_submit_does_not_understand_is_said(recipe, tmp_path, wanted, message):
    words = shlex.split(f"--config {recipe} --run.dir {tmp_path / 'run'} --submit {wanted}")
    done = subprocess.run([sys.executable, "-m", "avssl.cli.train", *words], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
