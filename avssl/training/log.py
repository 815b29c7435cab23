"""What a run says about itself: metrics.jsonl, TensorBoard, optionally Weights & Biases, and a line for people."""

from __future__ import annotations

import hashlib
import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avssl import files
from avssl.errors import UsageError

_BIN = re.compile(r"weight_\d\d")  # a histogram is for plots, and would fill the line that people read


class Meter:
    """Sums since the last log line. The part that a resumed run must repeat exactly is in `state_dict`."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = 0  # steps that counted: finite ones
        self.taken = self.clips = 0
        self.step_s = self.wait_s = 0.0

    def add(self, metrics: dict[str, float] | None, *, clips: int, step_s: float, wait_s: float) -> None:
        """One step; `metrics` is None if it was skipped."""
        if metrics is not None:
            self.steps += 1
            for name, value in metrics.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
        self.taken += 1
        self.clips += clips
        self.step_s += step_s
        self.wait_s += wait_s

    def means(self) -> dict[str, float | None]:
        """Means over the finite steps; the loss is null if there was none."""
        return {name: total / self.steps for name, total in self.sums.items()} or {"loss": None}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.sums), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.clear()
        self.sums, self.steps = dict(state["sums"]), state["steps"]


class Log:
    """Writes records that carry a `step`; opening it at a step drops what an interrupted run wrote beyond.

    Args:
        folder: the run folder.
        step: the last finished step.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int,
        rows: bool,
        tensorboard: bool,
        wandb: str | None,
        config: dict[str, Any],
        say: Callable[[str], None],
    ):
        self.say = say
        self._metrics = _open_truncated(folder / "metrics.jsonl", step)
        self._rows = _open_truncated(folder / "rows.jsonl", step) if rows else None
        self._board = self._wandb = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder), purge_step=step + 1)
        if wandb:
            self._wandb = _start_wandb(wandb, folder, config)

    def write(self, record: dict[str, Any]) -> None:
        """One line of metrics, everywhere."""
        self._metrics.write(files.json_line(record))
        self._metrics.flush()
        numbers = {name: value for name, value in record.items() if name != "step" and isinstance(value, (int, float))}
        if self._board:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, record["step"])
        if self._wandb:
            self._wandb.log(numbers, step=record["step"])
        self.say("  ".join(f"{name} {_short(value)}" for name, value in record.items() if not _BIN.fullmatch(name)))

    def write_rows(self, step: int, rows: list[int], loss: float | None) -> None:
        """The rows of one step in global order, and its loss (null if not finite)."""
        if self._rows:
            self._rows.write(files.json_line({"step": step, "rows": rows, "loss": loss}))

    def flush(self) -> None:
        """Hand everything to the system: a checkpoint must not be newer than the log it goes with."""
        for file in (self._metrics, self._rows, self._board):
            if file:
                file.flush()

    def close(self) -> None:
        for file in (self._metrics, self._rows, self._board):
            if file:
                file.close()
        if self._wandb:
            self._wandb.finish()


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far: allocated on a GPU, resident for a CPU run (workers not counted)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _open_truncated(path: Path, step: int) -> Any:
    """The JSONL file ready for the record after `step`; later ones, and half a last line, are cut off."""
    with path.open("a+b") as file:
        file.seek(0)
        end = 0
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            end += len(line)
        file.truncate(end)
    return path.open("ab")


def _start_wandb(project: str, folder: Path, config: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UsageError(
            "run.wandb is set, but the wandb package is missing; pip install avssl[wandb], or set run.wandb to null"
        ) from None
    place = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=4).hexdigest()
    name = f"{folder.name}-{place}"  # the same for each start of this run, another for a folder of the same name
    return wandb.init(project=project, dir=folder, name=name, id=name, resume="allow", config=config)


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return "none" if value is None else str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
