"""From the numbers of single runs to those of methods: means over seeds, and how much of a loss a method recovers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import UsageError
from avssl.files import read_json, write_atomic

CHIEF = ("probe_video", "probe_audio", "class_at_1", "instance_at_10", "auroc", "soft_class")
_DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation over seeds (of the sample), and how many seeds there were."""

    mean: float
    std: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.std:.3f}"


class Results:
    """The runs of a result file, by world, method and seed."""

    def __init__(self, tree: dict[str, Any]):
        self.tree = tree
        self.by_name = {(run["world"], run["method"], run["seed"]): run for run in tree["runs"]}

    @classmethod
    def read(cls, path: str | Path) -> Results:
        return cls(read_json(path))

    @property
    def methods(self) -> dict[str, str]:
        """Name and label of each method, in the study's order."""
        return {method["name"]: method["label"] or method["name"] for method in self.tree["study"]["methods"]}

    @property
    def worlds(self) -> dict[str, str]:
        """Name and label of each world, in the study's order."""
        return {world["name"]: world["label"] or world["name"] for world in self.tree["study"]["worlds"]}

    def runs(self, world: str, method: str) -> list[dict[str, Any]]:
        """By seed."""
        return [run for (a, b, _), run in sorted(self.by_name.items()) if (a, b) == (world, method)]

    def values(self, world: str, method: str, measure: str, when: str = "end") -> np.ndarray:
        """One number a seed; empty where there are no such runs or they do not have this measure."""
        return np.array([run[when][measure] for run in self.runs(world, method) if measure in run[when]])

    def spread(self, world: str, method: str, measure: str, when: str = "end") -> Spread | None:
        values = self.values(world, method, measure, when)
        if len(values) == 0:
            return None
        return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0, len(values))

    def recovered(self, clean: str, noisy: str, method: str, measure: str) -> tuple[float, float, float]:
        """The share of what xID loses from the `clean` to the `noisy` world that the method wins back there:
        `(method - xID) / (xID on clean data - xID)`, of means over seeds, with a 95 % interval (bootstrap over seeds).
        """
        top, bottom = self.values(clean, "xid", measure), self.values(noisy, "xid", measure)
        reached = self.values(noisy, method, measure)
        if not len(top) == len(bottom) == len(reached) > 0:
            raise UsageError(f"recovery of {method} in {noisy}: the seeds of the runs differ; run the whole study")
        draws = np.random.default_rng(0).integers(0, len(top), (_DRAWS, len(top)))
        shares = _recovered(top[draws].mean(1), bottom[draws].mean(1), reached[draws].mean(1))
        low, high = np.percentile(shares, (2.5, 97.5))
        return float(_recovered(top.mean(), bottom.mean(), reached.mean())), float(low), float(high)

    def lines(self, shown: Sequence[str] = CHIEF) -> list[str]:
        """The chief numbers in plain text, a line a method in a world."""
        found = []
        for world, method in dict.fromkeys((world, method) for world, method, _ in self.by_name):
            spreads = {measure: self.spread(world, method, measure) for measure in shown}
            numbers = "  ".join(f"{measure} {spread}" for measure, spread in spreads.items() if spread is not None)
            found.append(f"{world:16} {method:16} {numbers}")
        return found

    def missed(self, expectations: Sequence[dict[str, Any]]) -> list[str]:
        """A sentence for every expectation that the numbers do not meet."""
        found = []
        for expected in expectations:
            spread = self.spread(expected["world"], expected["method"], expected["measure"])
            if spread is None or spread.mean < expected["at_least"]:
                what = f"{expected['measure']} of {expected['method']} in {expected['world']}"
                found.append(f"{what} is {spread}, expected at least {expected['at_least']}")
        return found


def write_results(path: Path, tree: dict[str, Any]) -> None:
    """A result file: one line a run, so that it stays short and a difference readable."""
    head = json.dumps({**tree, "runs": []}, indent=2, allow_nan=False)
    lines = ",\n".join("    " + json.dumps(_rounded(run), allow_nan=False) for run in tree["runs"])
    text = head.replace('"runs": []', f'"runs": [\n{lines}\n  ]') + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _recovered(top: Any, bottom: Any, reached: Any) -> Any:
    return (reached - bottom) / (top - bottom)
