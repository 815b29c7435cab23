"""The folder of a run: what it holds, whose it is, and which changes of its config a continued run allows.

config.yaml        the resolved config        metrics.jsonl   one line every run.log_every steps
environment.json   versions and hardware      rows.jsonl      one line a step (run.log_rows)
checkpoints/       step-NNNNNNNN.pt, best.pt  model/          the model folder of the last checkpoint
events.out.*       TensorBoard                .lock           held by the process that writes
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from avssl import config, files
from avssl.environment import environment
from avssl.errors import ConfigError, UsageError
from avssl.training.config import TrainConfig
from avssl.training.phases import DATA, SECTIONS

LOCK = ".lock"
_FREE_RUN = (
    *("dir", "steps", "passes", "device", "devices", "strategy", "channels_last", "compile", "deterministic"),
    *("log_every", "log_rows", "tensorboard", "wandb", "checkpoint_every", "keep", "max_nonfinite"),
)
# What may differ when a run is continued: it changes how, how long or how fast, not what was computed so far. Of phases
# those that were entered are fixed, but for the length of the last of them.
_FREE = {
    "data.workers",
    "data.prefetch",
    "data.max_skipped",
    *(f"data.cache.{name}" for name in ("dir", "size_gb", "attempts", "pause_s", "timeout_s")),
    "data.shards",  # they may have moved: the manifest's hash in the checkpoint decides
    *(f"run.{name}" for name in _FREE_RUN),
}


class RunFolder:
    """Paths of a run, and the check that an existing folder belongs to it."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.rows = self.path / "rows.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self._lock: IO[bytes] | None = None

    def check(self, wanted: TrainConfig, entered: int = 0) -> None:
        """Refuse a folder that is no run, or a run of another config. Writes nothing.

        entered: number of the phase that the run is in, counted from 0.
        """
        if not self.path.exists() or (self.path.is_dir() and not {path.name for path in self.path.iterdir()} - {LOCK}):
            return
        if not self.config.is_file():
            raise UsageError(
                f"{self.path}: exists but is not a run folder (it has no config.yaml); choose another run.dir"
            )
        try:
            started = config.build(TrainConfig, config.read(self.config))
        except ConfigError as error:
            raise ConfigError(
                f"{self.config}: not one that this version of avssl reads ({error}); choose another run.dir"
            ) from error
        in_phases = bool(started.phases or wanted.phases)
        before, now = (_fixed(tree, entered, in_phases) for tree in (started, wanted))
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                raise ConfigError(
                    f"{self.path}: was started with {key} {before.get(key)!r}, now it is {now.get(key)!r};"
                    " set it back, or choose another run.dir"
                )

    def claim(self) -> None:
        """Create the folder and refuse it to every other process until this one ends or calls `release`.

        Raises UsageError if another process has it: two runs in one folder would mix their files.
        """
        self._lock = files.claim(self.path / LOCK, str(self.path))

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def abandon(self) -> None:
        """Release a folder in which no run has begun, and leave nothing behind if `claim` has created it."""
        if self._lock is not None:
            if {path.name for path in self.path.iterdir()} == {LOCK}:
                (self.path / LOCK).unlink()
                self.path.rmdir()
            self.release()

    def write_start(self, wanted: TrainConfig, device: str, world_size: int) -> None:
        """Create the folder or note another start of it, and sweep out what a kill left half written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink()
        earlier = files.read_json(self.environment)["starts"] if self.environment.is_file() else []
        files.write_json(
            self.environment,
            {"starts": [*earlier, environment(device) | {"command": sys.argv, "processes": world_size}]},
        )
        files.write_atomic(self.config, lambda file: file.write(config.dump(wanted).encode()))


def _fixed(settings: TrainConfig, entered: int, in_phases: bool) -> dict[str, Any]:
    """What a continued run must not change, by dotted key."""
    tree = config.plain(settings)
    for section in (*SECTIONS, "phases"):
        del tree[section]
    fixed = {key: value for key, value in flat(tree) if key not in _FREE}
    for number, phase in enumerate(settings.resolved_phases()[: entered + 1]):
        where = f"phases[{number}]." if in_phases else ""
        for section in SECTIONS:
            fixed |= flat(config.plain(getattr(phase, section)), where + section)
        for key in DATA:
            fixed |= flat(config.plain(getattr(phase.data, key)), f"{where}data.{key}")
        if number > 0:
            fixed[f"{where}keep_optimizer"] = phase.keep_optimizer
        if number < entered:
            fixed |= {f"{where}steps": phase.steps, f"{where}passes": phase.passes}
    return fixed


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf of nested dicts."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree
