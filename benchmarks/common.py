"""What every benchmark shares: machine and versions, where results go, how a table looks, whose CPU time counts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from avssl.environment import environment

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write `results/NAME.json` with the environment beside the numbers; returns the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = environment("cuda" if torch.cuda.is_available() else "cpu")
    path.write_text(json.dumps({"environment": machine, **result}, indent=2, allow_nan=False) + "\n")
    return path


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table with aligned columns; floats with three significant digits."""
    cells = [header, ["---"] * len(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = (" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(f"| {line} |" for line in lines)


def tree_cpu_s() -> float:
    """CPU seconds (user and system) of this process and all that descend from it, living ones included (Linux)."""
    ticks, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        number = int(stat.parent.name)
        parents[number] = int(fields[1])
        ticks[number] = sum(map(int, fields[11:15]))  # user, system, and those of children that ended
    tree = {os.getpid()}
    while children := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return sum(ticks[number] for number in tree) / os.sysconf("SC_CLK_TCK")


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)
