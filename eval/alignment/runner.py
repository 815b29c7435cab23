"""All runs of a study, on a few processes of one thread each. What is finished stays: the same call again goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from avssl.files import write_atomic, write_json
from eval.alignment.study import Run
from eval.robustness.runner import run_path

if TYPE_CHECKING:
    from eval.alignment.learn import Learner

TRACE_EVERY = 20  # steps whose metrics are averaged for the record


def run_group(runs: list[Run], folder: Path) -> None:
    """Runs that share a first phase: it is computed once, and each goes on from it. Writes a result file a run."""
    from eval.alignment.learn import Learner
    from eval.alignment.measure import measure
    from eval.alignment.worlds import load

    scenes, held_out = load(runs[0].world, folder.parent / "worlds")
    first, first_log, first_s = shared_start(Learner(scenes, runs[0].first), folder / f"start-{runs[0].start}.pt")
    for run in runs:
        started_s = time.process_time()
        learner = Learner(scenes, run)
        if run.method.curriculum:
            learner.start_from(first)
        else:
            learner = first
        log = trace(learner.second_phase())
        trained_s = time.process_time() - started_s
        result = {
            "world": run.world.name,
            "method": run.method.name,
            "seed": run.seed,
            "digest": run.digest,
            "end": measure(learner.task.model, run, scenes, held_out),
            "first_log": first_log,
            "log": log,
            "first_cpu_s": first_s,
            "train_cpu_s": trained_s,
            "cpu_s": time.process_time() - started_s,
            "scenes": {"train": len(scenes), "held_out": len(held_out)},
        }
        write_json(run_path(run, folder), result)


def shared_start(learner: Learner, path: Path) -> tuple[Learner, dict[str, list[float]], float]:
    """A learner after its first phase, what was logged in it and the CPU seconds that it took; kept in a file, so that
    later runs with the same start need not repeat it."""
    import torch

    if path.exists():
        kept = torch.load(path, weights_only=True)
        learner.task.load_state_dict(kept["task"])
        learner.steps = kept["steps"]
    else:
        started_s = time.process_time()
        log = trace(learner.first_phase())
        cpu_s = time.process_time() - started_s
        kept = {"task": learner.task.state_dict(), "steps": learner.steps, "log": log, "cpu_s": cpu_s}
        write_atomic(path, lambda file: torch.save(kept, file))
    return learner, kept["log"], kept["cpu_s"]


def trace(log: list[dict[str, float]]) -> dict[str, list[float]]:
    """Means over TRACE_EVERY steps of what was logged in each."""
    parts = [log[at : at + TRACE_EVERY] for at in range(0, len(log), TRACE_EVERY)]
    names: list[str] = list(log[0]) if log else []
    return {name: [sum(step[name] for step in part) / len(part) for part in parts] for name in names}
