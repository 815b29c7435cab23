"""Kill a run with SIGKILL again and again, continue it with the same command, and compare with one left alone.

    python tests/tools/kill_and_resume.py --kills 20

Equal must be, bit for bit: the rows and the loss of every step, everything in metrics.jsonl but the timings, and
all tensors of the last checkpoint. The runs are real `avssl-train` commands in processes of their own, forked from a
server that has the imports done, so that a kill costs no seconds.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / "configs"
TIMINGS = {"clips_per_s", "step_ms", "data_wait_percent", "peak_memory_mb"}


def command(argv):
    """What the child process runs: the command as it is, its chatter in a file."""
    from avssl.cli.train import main

    log = Path(argv[-1]).with_suffix(".log").open("a")
    os.dup2(log.fileno(), sys.stderr.fileno())
    main(argv)


def start(argv):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["avssl.training.loop"])
    process = context.Process(target=command, args=(argv,))
    process.start()
    return process


def steps_written(folder):
    """The last step that the run has logged."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith(b"}")]
    return json.loads(whole[-1])["step"] if whole else 0


def kill_at(process, folder, step, delay_s):
    """SIGKILL `delay_s` after the run has logged `step` (or when it ends before)."""
    while process.is_alive() and steps_written(folder) < step:
        time.sleep(0.002)
    time.sleep(delay_s)
    process.kill()
    process.join()


def deterministic(folder):
    """All that two runs must agree on, as comparable values."""
    import torch

    metrics = [
        {name: value for name, value in json.loads(line).items() if name not in TIMINGS}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    last = sorted((folder / "checkpoints").glob("step-*.pt"))[-1]
    return metrics, (folder / "rows.jsonl").read_text(), torch.load(last, weights_only=True)


def same(a, b):
    """Equality of nested values, tensors bit for bit."""
    import torch

    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(itertools.starmap(same, zip(a, b, strict=True)))
    return a == b


def compare(reference, other):
    """Names of what differs."""
    names = ("metrics.jsonl", "rows.jsonl", "checkpoint")
    pairs = zip(names, deterministic(reference), deterministic(other), strict=True)
    return [name for name, ours, theirs in pairs if not same(ours, theirs)]


def check(config, folder, *, steps, kills, seed=0, options=()):
    """Run `config` once undisturbed and once with `kills` kills at random moments. Returns (differences, attempts).

    steps: of the whole run, as `config` and `options` have it.
    """
    generator = random.Random(seed)

    def argv(name):
        return ["--config", str(config), *options, "--run.dir", str(folder / name)]

    undisturbed = start(argv("reference"))
    undisturbed.join()
    assert undisturbed.exitcode == 0, (folder / "reference.log").read_text()
    millis = [json.loads(line)["step_ms"] for line in (folder / "reference/metrics.jsonl").read_text().splitlines()]
    step_s = sorted(millis)[len(millis) // 2] / 1000

    killed = 0
    for step in sorted(generator.choices(range(steps - 4), k=kills)):
        process = start(argv("killed"))
        kill_at(process, folder / "killed", step, generator.uniform(0, 2 * step_s))
        killed += process.exitcode == -signal.SIGKILL
    last = start(argv("killed"))
    last.join()
    assert last.exitcode == 0, (folder / "killed.log").read_text()
    return compare(folder / "reference", folder / "killed"), killed


def lengths(config, steps):
    """Options that give a run `steps` steps; its phases share them."""
    from avssl.cli.train import read_config

    phases = read_config(str(config), []).phases
    if not phases:
        return ["--run.steps", str(steps)]
    borders = [steps * number // len(phases) for number in range(len(phases) + 1)]
    options = [
        (f"--phases[{i}].steps={stop - start}", f"--phases[{i}].passes=null")
        for i, (start, stop) in enumerate(itertools.pairwise(borders))
    ]
    return [option for pair in options for option in pair]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=CONFIGS / "avid_kinetics_debug.yaml")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", default="1", help="data.workers of the run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    from avssl.shards.build import build
    from avssl.shards.options import BuildOptions
    from avssl.shards.sources import list_sources
    from avssl.synthetic.world import WorldConfig, write_world

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(WorldConfig(clips=24, duration_s=2.0, size_px=64), folder / "world")
        build(list_sources(folder / "world"), folder / "shards", BuildOptions(clip_s=2.0, short_side_px=64))
        options = ["--data.shards", str(folder / "shards"), "--data.workers", arguments.workers]
        options += ["--run.log_rows", "true", "--run.checkpoint_every", "5", "--run.tensorboard", "false"]
        options += lengths(arguments.config, arguments.steps)
        differences, killed = check(
            arguments.config, folder, steps=arguments.steps, kills=arguments.kills, seed=arguments.seed, options=options
        )
    print(f"{killed} of {arguments.kills} kills hit a living run of {arguments.steps} steps;", end=" ")
    print(f"different: {', '.join(differences)}" if differences else "rows, losses and final state are identical")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
