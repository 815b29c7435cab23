"""Time of a training step beside a plain loop over the same network, batches and start, and that both lose the same.

    python -m benchmarks.train_step [--towers tiny|avid] [--batch-size B] [--steps 8] [--rounds 3] [--threads 1]

`step` is what `avssl-train` does with a batch that is in memory: pictures prepared, forward, backward, gradient norm,
Adam, memory banks. The plain loop (`plain_loop.py`) is float32; its `loss` must be that of our float32 variants. Each
variant runs in a process of its own, in turn, `--rounds` times; the median over all steps but each run's first two
counts. On a CPU variants are compared by the process's CPU time, which other jobs disturb least, on a GPU by the clock.
`whole loop` is `avssl-train` with a loader's worker, logs and checkpoint beside it, on batches that it reads itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch

from avssl import config as configuration
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.synthetic.world import WorldConfig, write_world
from avssl.tasks.base import Batch
from avssl.training.config import TrainConfig
from avssl.training.learner import Learner
from avssl.training.loop import Trainer
from benchmarks.common import markdown_table, write_result
from benchmarks.plain_loop import PlainLoop, prepared

TOWERS = {"tiny": ("tiny_video", "tiny_audio"), "avid": ("avid_r2plus1d_18", "avid_audio_cnn9")}
BATCH_SIZE = {"tiny": 16, "avid": 8}
SIZE_PX = {"tiny": 64, "avid": 112}
NEGATIVES, TEMPERATURE = 1024, 0.07
WARM_UP = 2  # steps of each run that do not count
PLAIN, WHOLE = "plain loop", "whole loop"

# How far losses may lie apart, relative, from the first step on. Adam's first steps follow the sign of gradients,
# however small they are, so rounding grows (see tests/training/test_golden.py).
LOSS_TOLERANCES = (1e-4, 2e-3, 1e-2)

Step = dict[str, float]  # wall_ms, cpu_ms (of this process, workers not counted), loss; wait_ms for a whole loop


def variants(device: str) -> dict[str, dict[str, Any]]:
    """What `run` is set to beside the defaults."""
    found: dict[str, dict[str, Any]] = {"avssl-train": {}, "bf16": {"precision": "bf16"}, WHOLE: {}}
    if device == "cuda":
        found["bf16 compile"] = {"precision": "bf16", "compile": True}
    return found


def make_config(options: dict[str, Any], shards: str, folder: Path, run: dict[str, Any]) -> TrainConfig:
    video, audio = TOWERS[options["towers"]]
    steps, size_px = options["steps"] + WARM_UP, options["size_px"]
    tree = {
        "run": {
            "dir": str(folder),
            "steps": steps,
            "device": options["device"],
            "log_every": 1,
            "checkpoint_every": steps + 1,
            "tensorboard": False,
            **run,
        },
        "data": {"shards": [shards], "batch_size": options["batch_size"], "workers": 1},
        "model": {
            "video": {"name": video},
            "audio": {"name": audio},
            "video_input": {"size_px": size_px, "resize_px": size_px * 9 // 8},
        },
        "task": {"name": "xid", "loss": "nce", "negatives": NEGATIVES, "temperature": TEMPERATURE},
    }
    return configuration.build(TrainConfig, tree)


def timed(step: Callable[[Batch, int], float], batches: list[Batch]) -> Iterator[Step]:
    for number, batch in enumerate(batches, 1):
        started, cpu = time.perf_counter(), time.process_time()
        loss = step(batch, number)
        spent = {"wall_ms": time.perf_counter() - started, "cpu_ms": time.process_time() - cpu}
        yield {name: 1000 * value for name, value in spent.items()} | {"loss": loss}


def run_steps(learner: Learner, batches: list[Batch]) -> list[Step]:
    def step(batch: Batch, number: int) -> float:
        result = learner.take_step([batch], step=number, step_in_phase=number - 1, rate=learner.config.optim.lr)
        assert result.metrics is not None
        return result.metrics["loss"]

    return list(timed(step, batches))


def run_whole(trainer: Trainer) -> list[Step]:
    clock = [time.process_time()]
    trainer.run(lambda: clock.append(time.process_time()))
    records = [json.loads(line) for line in (trainer.folder.path / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            "wall_ms": record["step_ms"],
            "cpu_ms": 1000 * (after - before),
            "loss": record["loss"],
            "wait_ms": record["step_ms"] * record["data_wait_percent"] / 100,
        }
        for record, (before, after) in zip(records, itertools.pairwise(clock), strict=True)
    ]


def make_plain(config: TrainConfig, start: dict[str, Any]) -> PlainLoop:
    banks = (start["task"]["video_bank.memory"], start["task"]["audio_bank.memory"])
    model = {key.removeprefix("model."): value for key, value in start["task"].items() if key.startswith("model.")}
    return PlainLoop(
        config.model,
        model,
        banks,
        negatives=NEGATIVES,
        temperature=TEMPERATURE,
        momentum=config.task.bank_momentum,
        lr=config.optim.lr,
        weight_decay=config.optim.weight_decay,
        seed=config.run.seed,
        device=start["device"],
    )


def run_variant(name: str, options: dict[str, Any], folder: Path, number: int) -> tuple[list[Step], float]:
    """The steps, and the CPU milliseconds of them that it takes to prepare the pictures."""
    torch.set_num_threads(options["threads"])
    start = torch.load(folder / "start.pt")
    batches = start["batches"]
    run = variants(start["device"]).get(name, {})
    config = make_config(options, start["shards"], folder / f"{name} {number}", run)
    picture = config.model.video_input
    assert picture
    if name == PLAIN:
        plain = make_plain(config, start)
        return list(timed(plain.step, batches)), preparing_ms(lambda batch: prepared(batch, picture), batches)
    trainer = Trainer(config, say=lambda line: None)
    steps = run_whole(trainer) if name == WHOLE else run_steps(trainer.learner, batches)
    return steps, preparing_ms(lambda batch: prepare(to_device(batch, start["device"]), picture), batches)


def preparing_ms(prepare_batch: Callable[[Batch], Any], batches: list[Batch]) -> float:
    spent = []
    for batch in batches:
        cpu = time.process_time()
        prepare_batch(batch)
        spent.append(1000 * (time.process_time() - cpu))
    return median(spent)


def write_start(options: dict[str, Any], folder: Path) -> str:
    """The batches, and the weights and banks that all start from, in a file; returns the device."""
    clips = options["batch_size"] * (options["steps"] + WARM_UP)
    write_world(WorldConfig(clips=min(clips, 64), duration_s=3.0, size_px=options["clip_px"]), folder / "world")
    build(
        list_sources(folder / "world"),
        folder / "shards",
        BuildOptions(clip_s=3.0, short_side_px=options["clip_px"]),
    )
    config = make_config(options, str(folder / "shards"), folder / "start", {})
    trainer = Trainer(config, say=lambda line: None)
    loader = Loader(config.data)
    start = {
        "batches": [next(loader) for _ in range(config.run.steps or 0)],
        "task": trainer.task.state_dict(),
        "device": trainer.fabric.device.type,
        "shards": str(folder / "shards"),
    }
    loader.close()
    trainer.close()
    torch.save(start, folder / "start.pt")
    return start["device"]


def measure(options: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Result of each variant by name."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # for the processes below; `avssl-train` sets it, too
    device = write_start(options, folder)
    names = [*variants(device), PLAIN]
    steps: dict[str, list[Step]] = {name: [] for name in names}
    preparing: dict[str, list[float]] = {name: [] for name in names}
    for number in range(options["rounds"]):
        losses: dict[str, list[float]] = {}
        for name in names:
            # A fresh process each: none inherits the heap of another.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                found, preparing_ms = process.submit(run_variant, name, options, folder, number).result()
            steps[name] += found[WARM_UP:]
            preparing[name].append(preparing_ms)
            losses[name] = [step["loss"] for step in found]
        for name in names:
            if "bf16" not in name:
                check_losses(name, losses[name], losses[PLAIN])
    return {name: summary(steps[name], preparing[name], options["batch_size"]) for name in names}


def check_losses(name: str, ours: list[float], plain: list[float]) -> None:
    for number, (mine, other, tolerance) in enumerate(zip(ours, plain, LOSS_TOLERANCES, strict=False), 1):
        if not math.isclose(mine, other, rel_tol=tolerance):
            raise AssertionError(f"{name}: the loss of step {number} is {mine}, in the plain loop {other}")


def summary(steps: list[Step], preparing_ms: list[float], batch_size: int) -> dict[str, Any]:
    middle = {key: median(step[key] for step in steps) for key in ("wall_ms", "cpu_ms")}
    wait = sum(step.get("wait_ms", 0.0) for step in steps) / sum(step["wall_ms"] for step in steps)
    return {
        **middle,
        "preparing_cpu_ms": median(preparing_ms),
        "data_wait_percent": 100 * wait,
        "clips_per_s": 1000 * batch_size / middle["wall_ms"],
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--towers", choices=list(TOWERS), default="tiny")
    parser.add_argument("--batch-size", type=int, default=None, help="default: 16 for tiny, 8 for avid")
    parser.add_argument("--size-px", type=int, default=None, help="of the video tower's input; default: 64 or 112")
    parser.add_argument("--clip-px", type=int, default=128, help="short side of the packed clips")
    parser.add_argument("--steps", type=int, default=8, help="steps of a run that count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--name", default=None, help="of the result file (default: train_step_TOWERS)")
    arguments = parser.parse_args()
    options = vars(arguments)
    options["batch_size"] = arguments.batch_size or BATCH_SIZE[arguments.towers]
    options["size_px"] = arguments.size_px or SIZE_PX[arguments.towers]
    with tempfile.TemporaryDirectory() as folder:
        results = measure(options, Path(folder))

    on_gpu = arguments.device != "cpu" and torch.cuda.is_available()
    plain = results[PLAIN]
    for result in results.values():
        result["times_plain_loop"] = (
            plain["wall_ms"] / result["wall_ms"] if on_gpu else plain["cpu_ms"] / result["cpu_ms"]
        )
        network = [r["cpu_ms"] - r["preparing_cpu_ms"] for r in (plain, result)]
        result["times_plain_loop_without_preparing"] = network[0] / network[1]
    columns = {
        "wall ms": "wall_ms",
        "CPU ms": "cpu_ms",
        "of it preparing": "preparing_cpu_ms",
        "data wait %": "data_wait_percent",
        "clips/s": "clips_per_s",
        "x plain loop": "times_plain_loop",
        "x without preparing": "times_plain_loop_without_preparing",
    }
    rows = [[name, *(result[key] for key in columns.values())] for name, result in results.items()]
    print(markdown_table(["variant", *columns], rows))
    name = arguments.name or f"train_step_{arguments.towers}"
    print(f"written to {write_result(name, {'options': options, 'variants': results})}")


if __name__ == "__main__":
    main()
