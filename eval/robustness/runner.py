"""All runs of a study, on a few processes of one thread each. What is finished stays: the same call again goes on."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from avssl.cli.common import progress
from avssl.config import merged
from avssl.files import read_json, write_json
from eval.robustness.study import Run

TRACE_EVERY = 50  # steps between two looks at the weights
_LOOK_S = 1.0


class AnyRun(Protocol):
    """What this file needs of a run, of whatever study. `training.steps`: how long it takes, relative to others."""

    @property
    def name(self) -> str: ...
    @property
    def start(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def training(self) -> Any: ...


def run_all(
    runs: Sequence[AnyRun],
    folder: Path,
    processes: int,
    run_group: Callable[[Any, Path], None] | None = None,
    group_of: Callable[[Any], Any] | None = None,
) -> list[dict[str, Any]]:
    """The results of all runs, in their order; those that `folder` already holds are not made again.

    run_group (default: this study's): makes runs of one group and writes the result of each to `run_path`.
    group_of: the group of a run; groups are begun in the order of their first runs. By default runs of equal `start`
    are a group, and the largest groups are begun first.
    """
    work: Callable[[Any, Path], None] = run_group or run_methods
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[Any, list[AnyRun]] = defaultdict(list)
    for run in runs:
        if finished(run, folder) is None:
            groups[group_of(run) if group_of else run.start].append(run)
    missing = [run for group in groups.values() for run in group]
    with progress("runs", len(runs)) as advance:
        done = len(runs) - len(missing)
        advance(done)
        if missing:
            ordered = list(groups.values())
            if group_of is None:
                ordered.sort(key=lambda group: -sum(run.training.steps for run in group))
            with ProcessPoolExecutor(processes, get_context("spawn"), initializer=one_thread) as pool:
                pending = {pool.submit(work, group, folder) for group in ordered}
                while pending:
                    ended, pending = wait(pending, _LOOK_S, FIRST_COMPLETED)
                    now = len(runs) - sum(finished(run, folder) is None for run in missing)
                    advance(now - done)
                    done = now
                    for future in ended:
                        future.result()
    return [result for run in runs if (result := finished(run, folder)) is not None]


def finished(run: AnyRun, folder: Path) -> dict[str, Any] | None:
    """The result of a run if it is there and was made with the same settings."""
    path = run_path(run, folder)
    if not path.exists():
        return None
    result = read_json(path)
    return result if result["digest"] == run.digest else None


def run_methods(runs: list[Run], folder: Path) -> None:
    """Runs that share a first phase: it is computed once, and each goes on from it. Writes a result file a run."""
    from eval.robustness.learn import Learner
    from eval.robustness.measure import auroc, measure, slow_targets
    from eval.robustness.worlds import load_world

    first = runs[0]
    parts = load_world(first.world, first.seed)
    training = first.training
    started_s = time.process_time()
    learner = Learner(parts.train, first.task, training, first.seed)
    learner.learn(training.warm_up_steps, training.lr)
    state, warm_up = learner.state(), measure(learner.task, parts)
    warm_up_s = time.process_time() - started_s
    for run in runs:
        started_s = time.process_time()
        learner = Learner(parts.train, run.task, run.training, run.seed, run.method.oracle)
        learner.load(state)
        learner.enter(merged(run.task, run.method.task))
        trace: list[list[float]] = []

        def look(step: int, learner: Learner = learner, trace: list[list[float]] = trace) -> None:
            if step % TRACE_EVERY == 0 and learner.task.config.targets == "bank":
                slow = slow_targets(learner.task, {})
                scores = (slow["video"] * slow["audio"]).sum(1)
                trace.append([step, auroc(-scores, parts.train.mismatched)])

        learner.learn(run.training.steps, run.training.second_lr, look if parts.train.mismatched.any() else _ignore)
        result = {
            "world": run.world.name,
            "method": run.method.name,
            "seed": run.seed,
            "digest": run.digest,
            "warm_up": warm_up,
            "end": measure(learner.task, parts),
            "auroc_by_step": trace,
            "warm_up_cpu_s": warm_up_s,
            "cpu_s": time.process_time() - started_s,
            "clips": {"train": len(parts.train), "held_out": len(parts.held_out)},
        }
        write_json(run_path(run, folder), result)


def _ignore(step: int) -> None:
    """Nothing to look at."""


def run_path(run: AnyRun, folder: Path) -> Path:
    """Where the result of a run is written."""
    return folder / f"{run.name}.json"


def one_thread() -> None:
    """Initialises a process of a pool."""
    import torch

    torch.set_num_threads(1)
