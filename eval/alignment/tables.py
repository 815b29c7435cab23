"""The tables of docs/avsa-evidence.md, from result files alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.common import markdown_table
from eval.alignment.measure_names import PERCENT, TURNS_DEG
from eval.robustness.summary import Results, Spread

_QUARTERS = (0, 90, 180, 270)
BIN = {
    "avsa_bin_4": "AVSA-Bin, 4 views",
    "avsa_bin_4_transformer": "with transformer",
    "avsa_bin_1": "1 view",
    "avc_bin_4": "AVC-Bin, 4 views",
    "avc_bin_4_transformer": "with transformer",
    "avc_bin_1": "1 view",
    "yaw_4": "yaw error, °",
    "own_view": "own view",
    "auc": "AUROC",
}
TURN = {
    "turn_lowers": "180° of sound lowers the score, % of scenes",
    "together_changes": "180° of both changes it by",
    "score_yaw_error_deg": "error of the yaw with the best score, °",
}


def method_table(results: Results, world: str, methods: Sequence[str], columns: dict[str, str] = BIN) -> str:
    """Methods in one world: mean ± deviation over seeds; empty where a method does not have a measure."""
    present = [name for name in methods if results.runs(world, name)]
    if not present:
        return "(None of these was run.)"
    shown = [key for key in columns if any(results.spread(world, name, key) for name in present)]
    rows = []
    for name in present:
        spreads = [results.spread(world, name, key) for key in shown]
        cells = ["" if spread is None else cell(key, spread) for key, spread in zip(shown, spreads, strict=True)]
        rows.append([results.methods[name], *cells, len(results.runs(world, name))])
    return markdown_table(["pretraining", *(columns[key] for key in shown), "seeds"], rows)


class Row(NamedTuple):
    """A row of the paper's table of the binary tasks: which of our runs it is, and its published accuracies in percent
    (YT-360, 4 views), None where there is none."""

    label: str
    method: str
    transformer: bool
    avsa_bin: float
    avc_bin: float

    def key(self, task: str) -> str:
        return f"{task}_4_transformer" if self.transformer else f"{task}_4"


# Methods C.12. In the paper AVC with transformer has the numbers of "instance negatives", AVSA without those of "direct
# prediction": so we read the rows.
PAPER = (
    Row("AVC", "avc", False, 59.25, 82.68),
    Row("AVC, with transformer", "avc_transformer", True, 61.20, 83.87),
    Row("AVTS, with transformer", "avts", True, 60.73, 83.77),
    Row("AVSA", "avsa_direct", False, 68.87, 91.67),
    Row("AVSA, with transformer", "avsa", True, 69.97, 89.83),
)


def paper_table(results: Results, worlds: Sequence[str]) -> str:
    """The rows of the paper's table: AVSA-Bin and AVC-Bin in each world, and what was published."""
    rows = []
    for row in PAPER:
        cells = []
        for task in ("avsa_bin", "avc_bin"):
            spreads = [results.spread(world, row.method, row.key(task)) for world in worlds]
            cells += ["" if spread is None else cell(task, spread) for spread in spreads]
            cells.append(f"{getattr(row, task):.1f}")
        if any(cells[: len(worlds)]):
            rows.append([row.label, *cells])
    heads = [
        f"{task}: {name}" for task in ("AVSA-Bin", "AVC-Bin") for name in (*map(results.worlds.get, worlds), "paper")
    ]
    return markdown_table(["pretraining", *heads], rows)


def gain_table(results: Results, worlds: Sequence[str]) -> str:
    """What AVSA has over AVC at equal seeds in AVSA-Bin at 4 views, in points: mean ± deviation of the differences."""
    rows = []
    for label, own, base in COMPARED:
        cells = [gain(results, world, own, base) for world in worlds]
        if any(found is not None for found in cells):
            rows.append([label, *("" if found is None else f"{found.mean:+.1f} ± {found.std:.1f}" for found in cells)])
    return markdown_table(["AVSA-Bin, 4 views, in points", *(results.worlds[world] for world in worlds)], rows)


def gain(results: Results, world: str, own: tuple[str, str], base: tuple[str, str]) -> Spread | None:
    """The differences of one measure of a method to one of another, in points, over the seeds that both have."""
    first, second = (
        {run["seed"]: run["end"].get(key) for run in results.runs(world, name)} for name, key in (own, base)
    )
    found = [100 * (first[seed] - second[seed]) for seed in first if None not in (first[seed], second.get(seed))]
    if not found:
        return None
    return Spread(float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else 0.0, len(found))


_FROZEN, _PREDICTED = "avsa_bin_4", "avsa_bin_4_transformer"
COMPARED = (
    ("AVSA with transformer over AVC", ("avsa", _PREDICTED), ("avc", _FROZEN)),
    ("AVSA over AVC, towers alone", ("avsa", _FROZEN), ("avc", _FROZEN)),
    ("AVSA over AVC, both with transformer", ("avsa", _PREDICTED), ("avc_transformer", _PREDICTED)),
    ("AVSA over AVC, both trained without transformer", ("avsa_direct", _FROZEN), ("avc", _FROZEN)),
)


def goal_table(results: Results, worlds: Sequence[str], chart: tuple[str, str, str]) -> str:
    """What was to be shown, what was measured, and whether that is it. worlds: the first is the chief one. chart: as a
    row of `chart_table`."""
    rows = []
    for world in worlds:
        for label, own, base in COMPARED:
            if (found := gain(results, world, own, base)) is not None:
                goal = f"{results.worlds[world]}: {label}: at least 10 points in AVSA-Bin at 4 views"
                rows.append([goal, f"{found.mean:+.1f} points", _met(found.mean >= 10)])
    chief = worlds[0]
    order = [row for row in PAPER if row.transformer and results.runs(chief, row.method)]
    for task, name in (("avsa_bin", "AVSA-Bin"), ("avc_bin", "AVC-Bin")) if order else ():
        values = [_mean(results, chief, row.method, row.key(task)) for row in order]
        measured = ", ".join(f"{row.label.split(',')[0]} {100 * v:.1f}" for row, v in zip(order, values, strict=True))
        goal = f"{results.worlds[chief]}: {name} in the paper's order, AVC, AVTS, AVSA, with transformer"
        rows.append([goal, measured, _met(values == sorted(values))])
    if results.runs(chief, "avsa"):
        lowers, changes = (_mean(results, chief, "avsa", key) for key in ("turn_lowers", "together_changes"))
        curve = [run["end"]["score_by_turn"] for run in results.runs(chief, "avsa")]
        step = float(sum(one[0] - one[TURNS_DEG.index(180)] for one in curve) / len(curve))
        rows.append(
            [
                "turning the sound alone by 180° lowers the score of AVSA",
                f"by {step:.3f} on average; for {100 * lowers:.0f} % of scenes",
                _met(step > 0 and lowers > 0.5),
            ]
        )
        rows.append(["turning picture and sound together leaves it", f"changes by {changes:.6f}", _met(changes < 1e-3)])
    where, method, prefix = chart
    if runs := [run for run in results.runs(where, method) if f"{prefix}score_by_turn" in run["end"]]:
        first = sum(max(c := run["end"][f"{prefix}score_by_turn"]) == c[0] for run in runs)
        goal = "on the chart clip the right yaw has the best score, trained on rendered scenes"
        rows.append([goal, f"{first} of {len(runs)} seeds", _met(first == len(runs))])
    return markdown_table(["goal", "measured", "met"], rows)


def _mean(results: Results, world: str, method: str, key: str) -> float:
    return float(results.values(world, method, key).mean())


def _met(yes: bool) -> str:
    return "yes" if yes else "**no**"


def score_table(results: Results, world: str, methods: Sequence[str]) -> str:
    """The mean alignment score over scenes and seeds, for each turn of the sound."""
    rows = []
    for name in methods:
        curves = [run["end"]["score_by_turn"] for run in results.runs(world, name)]
        if curves:
            means = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            rows.append([results.methods[name], *(f"{mean:.3f}" for mean in means)])
    return markdown_table(["pretraining", *(f"{turn}°" for turn in TURNS_DEG)], rows)


def chart_table(results: Results, rows: Sequence[tuple[str, str, str]]) -> str:
    """On the chart clip: in how many runs the right yaw has the best mean score of all TURNS_DEG, its mean rank, the
    mean error of the best yaw of single looks. rows: world, method, what measures begin with."""
    found = []
    for world, method, prefix in rows:
        runs = [run for run in results.runs(world, method) if f"{prefix}score_by_turn" in run["end"]]
        if not runs:
            continue
        curves = [run["end"][f"{prefix}score_by_turn"] for run in runs]
        ranks = [1 + sum(score > curve[0] for score in curve[1:]) for curve in curves]
        error = results.spread(world, method, f"{prefix}score_yaw_error_deg")
        found.append(
            [
                results.methods[method],
                f"{ranks.count(1)} of {len(ranks)}",
                f"{sum(ranks) / len(ranks):.1f}",
                cell("", error) if error else "",
                *(f"{sum(curve[TURNS_DEG.index(turn)] for curve in curves) / len(curves):.3f}" for turn in _QUARTERS),
            ]
        )
    turns = [f"score at {turn}°" for turn in _QUARTERS]
    return markdown_table(
        ["trained by", "right yaw first", f"its rank of {len(TURNS_DEG)}", "error of a look, °", *turns], found
    )


def machine_line(results: Results) -> str:
    """What made the numbers, where, and how long it took, as a sentence."""
    tree, machine = results.tree, results.tree["environment"]
    starts = {(run["world"], run["seed"], run["first_cpu_s"]) for run in tree["runs"]}  # shared by several runs
    minutes = (sum(run["cpu_s"] for run in tree["runs"]) + sum(seconds for *_, seconds in starts)) / 60
    return (
        f"{len(tree['runs'])} runs, {minutes:.0f} CPU minutes, {tree['processes']} processes of one thread "
        f"on {machine['cores']} cores ({machine['cpu']}, no GPU); torch {machine['packages']['torch']}, commit "
        f"{machine['commit']}, {machine['date'][:10]}."
        + (f" {missing} runs of the study were not made." if (missing := tree["missing"]) else "")
    )


def cell(key: str, spread: Spread) -> str:
    """Shares in percent, the rest as it is, with the deviation over seeds."""
    if key.startswith(PERCENT):
        return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}"
    digits = 1 if spread.mean >= 1 else 4
    return f"{spread.mean:.{digits}f} ± {spread.std:.{digits}f}"
