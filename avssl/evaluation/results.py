"""The files of an evaluation: `results.json` with all that a number depends on, and its tables as CSV."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from pathlib import Path
from typing import Any

from avssl import config as configuration
from avssl import files
from avssl.environment import environment
from avssl.errors import AvsslError
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.models.folder import CONFIG, WEIGHTS, find_folder

RESULTS = "results.json"


def write_results(out: Path, config: EvalConfig, outcome: Outcome, *, wall_s: float) -> Path:
    """Write results.json and the tables into the folder `out`; returns the path of results.json.

    Raises AvsslError, and writes nothing, if more items were skipped than `config.allow_missing` or nothing is left.
    """
    refuse_incomplete(config, outcome.skipped, outcome.items)
    if not outcome.items:
        raise AvsslError(f"{config.name}: there is no item to evaluate; check the paths in protocol")
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in outcome.tables.items():
        _write_csv(out / f"{name}.csv", rows)
    tree = {
        "name": config.name,
        "protocol": config.protocol.name,
        "metrics": _finite(outcome.metrics),
        "chance": _finite(outcome.chance),
        "counts": {"items": outcome.items, "skipped": len(outcome.skipped)},
        "skipped": outcome.skipped,
        "tables": outcome.tables,
        **({"extra": outcome.extra} if outcome.extra else {}),
        "model": None if config.model is None else model_facts(config.model),
        "seed": config.seed,
        "wall_s": round(wall_s, 2),
        "config": configuration.plain(config),
        "environment": environment(config.device),
    }
    files.write_json(out / RESULTS, tree)
    return out / RESULTS


def refuse_incomplete(config: EvalConfig, skipped: list[dict[str, str]], usable: int) -> None:
    """Raise AvsslError if more items were skipped than `config.allow_missing`; usable: how many were not."""
    if len(skipped) > config.allow_missing:
        first = skipped[0]
        raise AvsslError(
            f"{config.name}: {len(skipped)} of {usable + len(skipped)} items could not be used, the first:"
            f" {first['item']} ({first['cause']}), so the score would not be comparable; repair them, or allow it with"
            f" --allow_missing {len(skipped)}"
        )


def model_facts(source: str) -> dict[str, Any]:
    """Which model: where it came from, and sha256 of its weights and of its description."""
    folder = find_folder(source)
    digests = {}
    for name in (WEIGHTS, CONFIG):
        with (folder / name).open("rb") as file:
            digests[f"{name} sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"source": source, **digests}


def _finite(numbers: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a metric that is not defined is null."""
    return {key: float(value) if math.isfinite(value) else None for key, value in numbers.items()}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_atomic(path, lambda file: file.write(text.getvalue().encode()))
