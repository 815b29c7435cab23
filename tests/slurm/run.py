"""The batch scripts of pipelines/slurm under a real Slurm: `make test-slurm`.

Two node daemons on this machine, rendered clips, the smallest towers: pack as an array of two, merge, pretrain on two
nodes, evaluate, each waiting for the one before. The pretraining is pre-empted by a job of higher priority (SIGTERM),
later told that its time is nearly over (SIGUSR1), and put back into the queue both times. Then the same through
`avssl-train --submit`. Checked: every step is there once, has the rows that one uninterrupted process has, and its loss
up to rounding; the evaluation has a score.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from local_cluster import LocalCluster

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "pipelines" / "slurm"
STEPS, SUBMITTED_STEPS = 80, 4
LIMIT_S = 1200
URGENT = ("--partition=high", "--nodes=2", "--cpus-per-task=2", "--wrap", "sleep 2")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/slurm"))
    work = parser.parse_args().out.resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Both nodes are this machine: their names lead nowhere. Their ranks have one core each.
    os.environ |= {"HEAD": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    os.environ["AVSSL_PIPELINES"] = str(ROOT / "pipelines")
    started = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    make_videos(work / "videos")
    with LocalCluster(work / "cluster") as cluster:
        say("Slurm runs: " + cluster.run("sinfo", "-h", "-N", "-o", "%N %P %t").replace("\n", ", "))
        jobs = submit_all(cluster, work)
        say(f"submitted: {jobs}")
        wait_for_steps(cluster, work / "run", 3)
        say("pre-empted by a job of the partition high")
        stop_and_restart(
            cluster, jobs["pretrain"], 1, lambda: cluster.submit("-phigh", "-N2", "-c2", "--wrap", "sleep 2")
        )
        before = len(rows_of(work / "run"))
        say(f"requeued after step {before}")
        wait_for_steps(cluster, work / "run", before + 5)
        say("told by SIGUSR1 that its time is over")
        signalled = ("scancel", "--signal=USR1", jobs["pretrain"])
        stop_and_restart(cluster, jobs["pretrain"], 2, lambda: cluster.run(*signalled))
        say(f"requeued after step {len(rows_of(work / 'run'))}")
        cluster.wait(lambda: is_over(cluster, jobs["evaluate"]), "end of the evaluation", LIMIT_S)
        states = {name: cluster.state(job) for name, job in jobs.items()}
        say(f"ended: {states}")
        assert set(states.values()) == {"COMPLETED"}, states
        submit_through_submitit(cluster, work)
        say("a job of avssl-train --submit has ended")
    avssl("train", "--config", work / "pretrain.yaml", "--run.dir", work / "one")
    compare(work, say)


def make_videos(folder):
    from avssl.synthetic.world import WorldConfig, write_world

    write_world(WorldConfig(clips=24, classes=4, duration_s=2.0, size_px=64, seed=1), folder)


def submit_all(cluster, work):
    config = work / "pretrain.yaml"
    config.write_text(yaml.safe_dump(recipe(work)))
    log = ("-o", work / "cluster" / "job-%x-%j.log", "--cpus-per-task=1")
    packing = ("--clip-s", "2", "--short-side-px", "64", "--shard-clips", "4")
    pack = cluster.submit(*log, "--array=0-1", SCRIPTS / "pack.sbatch", work / "videos", work / "shards", *packing)
    merge = cluster.submit(*log, f"--dependency=afterok:{pack}", SCRIPTS / "merge.sbatch", work / "shards")
    pretrain = cluster.submit(
        *log, "--time=30", f"--dependency=afterok:{merge}", SCRIPTS / "pretrain.sbatch", "--config", config
    )
    frozen = ("--config", ROOT / "eval" / "frozen_folder.yaml", "--model", work / "run" / "model")
    data = ("--protocol.data.root", work / "videos", "--protocol.feature", "both", "--out", work / "evaluation")
    evaluate = cluster.submit(*log, f"--dependency=afterok:{pretrain}", SCRIPTS / "evaluate.sbatch", *frozen, *data)
    return {"pack": pack, "merge": merge, "pretrain": pretrain, "evaluate": evaluate}


def recipe(work):
    """The smallest towers; no checkpoint but those of the interruptions and the last."""
    front_end = {"name": "log_mel", "kwargs": {"fft": 1024, "hop": 480, "bands": 32}}
    run = {"dir": str(work / "run"), "steps": STEPS, "device": "cpu", "log_every": 1, "log_rows": True}
    clip = {"frames": 4, "fps": 8.0, "size_px": 32, "resize_px": 36, "mean": [0.5] * 3, "std": [0.25] * 3}
    return {
        "run": {**run, "tensorboard": False, "checkpoint_every": 10_000},
        "data": {
            "shards": [str(work / "shards")], "batch_size": 32, "workers": 0,
            "video": {"frames": 4, "fps": 8.0}, "audio": {"duration_s": 1.0},
        },
        "model": {
            "video": {"name": "tiny_video"}, "audio": {"name": "tiny_audio"}, "video_input": clip,
            "audio_input": {"rate_hz": 24000, "duration_s": 1.0, "channels": 1, "front_end": front_end},
            "head": {"hidden": [64], "dim": 32},
        },
        "task": {"name": "xid", "loss": "nce", "negatives": 32},
        "optim": {"lr": 1e-6},  # small, so that the order of sums does not grow into another course
    }  # fmt: skip


def stop_and_restart(cluster, job, restarts, stop):
    stop()
    cluster.wait(lambda: int(cluster.field(job, "Restarts")) == restarts, f"requeue {restarts}", LIMIT_S)
    cluster.wait(lambda: cluster.state(job) in ("PENDING", "RUNNING"), "place in the queue", LIMIT_S)
    if cluster.state(job) == "PENDING":  # Slurm would wait two minutes
        cluster.run("scontrol", "update", f"jobid={job}", "StartTime=now")


def submit_through_submitit(cluster, work):
    wanted = "nodes=2,partition=low,hours=0.5,grace_s=60"
    name, run = work / "submitted", ("--run.dir", work / "submitted", "--run.steps", SUBMITTED_STEPS)
    done = avssl("train", "--config", work / "pretrain.yaml", *run, "--submit", wanted, environment=cluster.environment)
    job = done.stdout.split()[1]
    cluster.wait(lambda: is_over(cluster, job), "end of the submitted job", LIMIT_S)
    assert cluster.state(job) == "COMPLETED", (work / f"{name.name}.jobs", cluster.state(job))


def is_over(cluster, job):
    return cluster.state(job) not in ("PENDING", "RUNNING", "COMPLETING")


def wait_for_steps(cluster, run, steps):
    cluster.wait(lambda: len(rows_of(run)) >= steps, f"step {steps}", LIMIT_S)


def rows_of(run):
    """[(step, rows, loss)] as far as they are written."""
    path = run / "rows.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def compare(work, say):
    one, two, submitted = (rows_of(work / name) for name in ("one", "run", "submitted"))
    assert [line["step"] for line in two] == list(range(1, STEPS + 1)), "a step is missing or there twice"
    assert [line["rows"] for line in two] == [line["rows"] for line in one], "other samples than in one process"
    assert [line["rows"] for line in submitted] == [line["rows"] for line in one[:SUBMITTED_STEPS]]
    apart = max(abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(two, one, strict=True))
    assert apart < 1e-3, f"losses differ by {apart}"
    starts = json.loads((work / "run" / "environment.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2, 2, 2]
    results = json.loads((work / "evaluation" / "results.json").read_text())
    assert results["metrics"], results
    say(
        f"{STEPS} steps on two nodes in three pieces: every step once, the rows of one process, losses within"
        f" {apart:.1e}; {SUBMITTED_STEPS} steps through submitit alike;"
        f" evaluation {json.dumps(results['metrics'])[:200]}"
    )


def avssl(command, *arguments, environment=None):
    words = [f"{Path(sys.executable).parent}/avssl-{command}", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done


if __name__ == "__main__":
    main()
