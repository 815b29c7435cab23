"""Time of a training step: the loop as users run it, in several settings, beside a plain loop over the same network.

    python -m benchmarks.train_step [--towers tiny|avid] [--batch-size 16] [--steps 8] [--rounds 3]

All variants read the same rendered clips through the same loader. They are run in turn, `--rounds` times, and the
median over all steps but each run's first two counts. `compute` is a step without the wait for data. The plain loop
does what a script would: contiguous float32 weights, one module, one gathered bank, no logs, no checkpoints. On a CPU
the two are compared by CPU time, which other jobs on the machine disturb least; on a GPU by `compute`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn import functional as F

from avssl import config as configuration
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.models.two_tower import TwoTower
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.synthetic.world import WorldConfig, write_world
from avssl.training.config import TrainConfig
from avssl.training.loop import Trainer
from benchmarks.common import markdown_table, write_result

TOWERS = {"tiny": ("tiny_video", "tiny_audio"), "avid": ("avid_r2plus1d_18", "avid_audio_cnn9")}
NEGATIVES, TEMPERATURE = 1024, 0.07
WARM_UP = 2  # steps of each run that do not count

Timing = tuple[float, float, float]  # step, wait for data, CPU time of this process without workers; all in ms


def variants(device: str) -> dict[str, dict[str, Any]]:
    """What `run` is set to beside the defaults."""
    found: dict[str, dict[str, Any]] = {
        "avssl-train": {},
        "channels_last": {"channels_last": True},
        "bf16 channels_last": {"precision": "bf16", "channels_last": True},
    }
    if device == "cuda":
        found["bf16 channels_last compile"] = {"precision": "bf16", "channels_last": True, "compile": True}
    return found


def make_config(arguments: argparse.Namespace, shards: Path, folder: Path, run: dict[str, Any]) -> TrainConfig:
    video, audio = TOWERS[arguments.towers]
    steps = arguments.steps + WARM_UP
    tree = {
        "run": {
            "dir": str(folder),
            "steps": steps,
            "log_every": 1,
            "checkpoint_every": steps + 1,
            "tensorboard": False,
        },
        "data": {"shards": [str(shards)], "batch_size": arguments.batch_size, "workers": arguments.workers},
        "model": {"video": {"name": video}, "audio": {"name": audio}},
        "task": {"name": "xid", "negatives": NEGATIVES, "temperature": TEMPERATURE},
    }
    tree["run"] |= {"device": arguments.device, **run}
    tree["data"]["pixels"] = "yuv420p"
    return configuration.build(TrainConfig, tree)


def run_ours(config: TrainConfig) -> list[Timing]:
    clock = [time.process_time()]
    Trainer(config, say=lambda line: None).run(lambda: clock.append(time.process_time()))
    lines = (Path(config.run.dir) / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    cpu_ms = [1000 * (after - before) for before, after in itertools.pairwise(clock)]
    waits = [record["step_ms"] * record["data_wait_percent"] / 100 for record in records]
    return list(zip([record["step_ms"] for record in records], waits, cpu_ms, strict=True))


def run_plain(config: TrainConfig, device: str) -> list[Timing]:
    torch.manual_seed(0)
    model = TwoTower(config.model).to(device)
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    loader = Loader(config.data)
    rows = loader.rows_total
    banks = [F.normalize(torch.randn(rows, config.model.head.dim, device=device), dim=1) for _ in range(2)]
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay)
    timings = []
    for _ in range(config.run.steps or 0):
        started, waited, cpu = time.perf_counter(), loader.wait_s, time.process_time()
        batch = prepare(to_device(next(loader), device), config.model.video_input)
        out = model(video=batch["video"].flatten(0, 1), audio=batch["audio"].flatten(0, 1))
        video, audio = (F.normalize(out[name], dim=1) for name in ("video", "audio"))
        columns = torch.randint(rows, (len(video), 1 + NEGATIVES), device=device)
        columns[:, 0] = batch["row"]
        loss = torch.zeros((), device=device)
        for query, bank in ((video, banks[1]), (audio, banks[0])):
            scores = (query[:, None] * bank[columns]).sum(-1) / TEMPERATURE
            loss = loss + F.cross_entropy(scores, torch.zeros_like(columns[:, 0])) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for embedding, bank in zip((video, audio), banks, strict=True):
            bank[batch["row"]] = F.normalize((bank[batch["row"]] + embedding.detach()) / 2, dim=1)
        loss.item()
        spent = (time.perf_counter() - started, loader.wait_s - waited, time.process_time() - cpu)
        timings.append((1000 * spent[0], 1000 * spent[1], 1000 * spent[2]))
    loader.close()
    return timings


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, list[Timing]]:
    write_world(WorldConfig(clips=64, duration_s=3.0, size_px=arguments.clip_px), folder / "world")
    options = BuildOptions(clip_s=3.0, short_side_px=arguments.clip_px)
    build(list_sources(folder / "world"), folder / "shards", options)
    device = "cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu"

    def ours(run: dict[str, Any]) -> Callable[[Path], list[Timing]]:
        return lambda place: run_ours(make_config(arguments, folder / "shards", place, run))

    runs = {name: ours(run) for name, run in variants(device).items()}
    runs["plain loop"] = lambda place: run_plain(make_config(arguments, folder / "shards", place, {}), device)
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    for number in range(arguments.rounds):
        for name, run in runs.items():
            timings[name] += run(folder / f"{name} {number}")[WARM_UP:]
    return timings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--towers", choices=list(TOWERS), default="tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clip-px", type=int, default=128, help="short side of the packed clips")
    parser.add_argument("--steps", type=int, default=8, help="steps of a run that count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--name", default=None, help="of the result file (default: train_step_TOWERS)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        timings = measure(arguments, Path(folder))

    on_gpu = arguments.device != "cpu" and torch.cuda.is_available()
    results: dict[str, dict[str, Any]] = {}
    for name, steps in timings.items():
        step_ms = median(step for step, _, _ in steps)
        results[name] = {
            "step_ms": step_ms,
            "compute_ms": median(step - wait for step, wait, _ in steps),
            "cpu_ms": median(cpu for _, _, cpu in steps),
            "data_wait_percent": 100 * sum(wait for _, wait, _ in steps) / sum(step for step, _, _ in steps),
            "clips_per_s": 1000 * arguments.batch_size / step_ms,
        }
    key = "compute_ms" if on_gpu else "cpu_ms"
    for result in results.values():
        result["speed_over_plain_loop"] = results["plain loop"][key] / result[key]
    header = ["variant", "step ms", "compute ms", "CPU ms", "data wait %", "clips/s", "× plain loop"]
    print(markdown_table(header, [[name, *result.values()] for name, result in results.items()]))
    for name, steps in timings.items():
        results[name]["steps"] = steps
    path = write_result(
        arguments.name or f"train_step_{arguments.towers}",
        {"options": vars(arguments), "threads": torch.get_num_threads(), "variants": results},
    )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
