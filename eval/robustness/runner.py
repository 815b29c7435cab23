"""All runs of a study, on a few processes of one thread each. What is finished stays: the same call again goes on."""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from avssl.cli.common import progress
from avssl.config import merged
from avssl.files import read_json, write_json
from eval.robustness.study import Run

TRACE_EVERY = 50  # steps between two looks at the weights
_LOOK_S = 1.0


def run_all(runs: list[Run], folder: Path, processes: int) -> list[dict[str, Any]]:
    """The results of all runs, in their order; those that `folder` already holds are not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if finished(run, folder) is None:
            groups[run.start].append(run)
    missing = [run for group in groups.values() for run in group]
    with progress("runs", len(runs)) as advance:
        done = len(runs) - len(missing)
        advance(done)
        if missing:
            largest_first = sorted(groups.values(), key=lambda group: -sum(run.training.steps for run in group))
            with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_one_thread) as pool:
                pending = {pool.submit(run_group, group, folder) for group in largest_first}
                while pending:
                    ended, pending = wait(pending, _LOOK_S, FIRST_COMPLETED)
                    now = len(runs) - sum(finished(run, folder) is None for run in missing)
                    advance(now - done)
                    done = now
                    for future in ended:
                        future.result()
    return [result for run in runs if (result := finished(run, folder)) is not None]


def finished(run: Run, folder: Path) -> dict[str, Any] | None:
    """The result of a run if it is there and was made with the same settings."""
    path = _path(run, folder)
    if not path.exists():
        return None
    result = read_json(path)
    return result if result["digest"] == run.digest else None


def run_group(runs: list[Run], folder: Path) -> None:
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
        write_json(_path(run, folder), result)


def _ignore(step: int) -> None:
    """Nothing to look at."""


def _path(run: Run, folder: Path) -> Path:
    return folder / f"{run.name}.json"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
