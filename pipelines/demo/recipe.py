"""The demo's way from clips to measured embeddings; `bundle.py` makes the bundled model with the same functions."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avssl import config
from avssl.cli.common import progress
from avssl.files import read_json, read_jsonl, write_jsonl
from avssl.synthetic.world import WorldConfig, write_world
from pipelines.demo.clips import SHORTEST_CLIP_S, Split, Video
from pipelines.demo.log import Log
from pipelines.demo.measure import Embedded

CONFIG = Path("configs/tiny.yaml")
WORLD = WorldConfig(clips=480, classes=8, seed=1)
BATCH = 32
STEPS = 450  # about two minutes on two cores
MOST_PASSES = 150  # a few clips are learned by heart sooner
SHORT_SIDE_PX = 96


@dataclass(frozen=True)
class Run:
    """Where things lie, and how hard to work."""

    out: Path
    device: str
    steps: int | None  # None: as many as make sense
    clip_s: float

    def shards(self, part: str) -> Path:
        return self.out / "shards" / part

    @property
    def run_folder(self) -> Path:
        return self.out / "run"

    @property
    def model(self) -> Path:
        return self.run_folder / "model"


def render(world: WorldConfig, folder: Path) -> list[Video]:
    """Write the rendered world, on all cores, and return its clips."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with progress("rendering", world.clips) as advance:
        rows = write_world(world, folder, workers=cores, advance=advance)
    return [Video(row["path"], row["label"], 0.0, world.duration_s) for row in rows]


def pack(log: Log, run: Run, root: Path, split: Split) -> None:
    """One shard folder to learn from, one to measure on."""
    for part, rows in (("train", split.train), ("held_out", split.held_out)):
        clip_list = run.out / f"{part}.jsonl"
        write_jsonl(clip_list, rows)
        log.run(
            "avssl-shards", "build", clip_list, run.shards(part), "--root", root, "--require", "both",
            "--clip-s", f"{run.clip_s:g}", "--min-clip-s", f"{SHORTEST_CLIP_S:g}",
            "--short-side-px", str(SHORT_SIDE_PX),
        )  # fmt: skip


def pretrain(log: Log, run: Run) -> list[dict[str, Any]]:
    """Train the tiny model on the packed clips; returns the lines of its metrics.jsonl."""
    from avssl.shards.read import ShardSet

    rows = len(ShardSet.open(run.shards("train")))
    batch_size = min(BATCH, rows)  # no clip should meet itself in a batch
    steps = run.steps or min(STEPS, math.ceil(MOST_PASSES * rows / batch_size))
    log.run(
        "avssl-train", "--config", CONFIG, "--run.dir", run.run_folder, "--run.steps", str(steps),
        "--run.device", run.device, "--data.shards", json.dumps([str(run.shards("train"))]),
        "--data.batch_size", str(batch_size),
    )  # fmt: skip
    return read_jsonl(run.run_folder / "metrics.jsonl")


def batch_size(run: Run) -> int:
    """Of the finished run."""
    return config.read(run.run_folder / "config.yaml")["data"]["batch_size"]


def embed(log: Log, run: Run, part: str) -> Embedded:
    """One embedding of picture and one of sound for every packed clip."""
    table = run.out / f"{part}.npz"
    log.run(
        "avssl-embed", run.shards(part), "-o", table, "--model", run.model, "--device", run.device,
        "--window", f"{run.clip_s:g}", "--hop", f"{run.clip_s:g}",
    )  # fmt: skip
    return Embedded.read(table)


def environment(run: Run) -> dict[str, Any]:
    """Versions and hardware, as the training run noted them."""
    return read_json(run.run_folder / "environment.json")["starts"][-1]
