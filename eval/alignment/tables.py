"""The tables of docs/avsa-evidence.md, from result files alone."""

from __future__ import annotations

from collections.abc import Sequence

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
    shown = [key for key in columns if any(results.spread(world, name, key) for name in present)]
    rows = []
    for name in present:
        spreads = [results.spread(world, name, key) for key in shown]
        cells = ["" if spread is None else cell(key, spread) for key, spread in zip(shown, spreads, strict=True)]
        rows.append([results.methods[name], *cells, len(results.runs(world, name))])
    return markdown_table(["pretraining", *(columns[key] for key in shown), "seeds"], rows)


def gain_table(results: Results, world: str, methods: Sequence[str], base: str = "avc") -> str:
    """What methods have over the base at equal seeds, in points: mean ± deviation of the differences, for AVSA-Bin."""
    keys = ("avsa_bin_4", "avc_bin_4", "avsa_bin_1", "avc_bin_1")
    rows = []
    for name in methods:
        bases = {run["seed"]: run["end"] for run in results.runs(world, base)}
        pairs = [(run["end"], bases[run["seed"]]) for run in results.runs(world, name) if run["seed"] in bases]
        if pairs:
            differences = [np.array([100 * (own[key] - other[key]) for own, other in pairs]) for key in keys]
            cells = [f"{d.mean():+.1f} ± {d.std(ddof=1) if len(d) > 1 else 0:.1f}" for d in differences]
            rows.append([results.methods[name], *cells])
    return markdown_table([f"points over {results.methods[base]}", *(BIN_LONG[key] for key in keys)], rows)


BIN_LONG = {
    "avsa_bin_4": "AVSA-Bin, 4 views",
    "avc_bin_4": "AVC-Bin, 4 views",
    "avsa_bin_1": "AVSA-Bin, 1 view",
    "avc_bin_1": "AVC-Bin, 1 view",
}


def goal_table(results: Results, world: str, chart: tuple[str, str, str]) -> str:
    """What was to be shown, what was measured, and whether that is it. chart: as a row of `chart_table`."""
    rows = []
    for name, base in (("avsa", "avc"), ("avsa_ambisonics", "avc_ambisonics")):
        if results.runs(world, name) and results.runs(world, base):
            points = 100 * (_mean(results, world, name, "avsa_bin_4") - _mean(results, world, base, "avsa_bin_4"))
            goal = f"AVSA-Bin at 4 views: {results.methods[name]} at least 10 points above {results.methods[base]}"
            rows.append([goal, f"{points:+.1f} points", _met(points >= 10)])
    order = [name for name in ("avc", "avts", "avsa") if results.runs(world, name)]
    for key in ("avsa_bin_4", "avc_bin_4"):
        values = [_mean(results, world, name, key) for name in order]
        measured = ", ".join(f"{results.methods[n]} {100 * v:.1f}" for n, v in zip(order, values, strict=True))
        rows.append([f"{BIN_LONG[key]}: the paper's order, AVC, AVTS, AVSA", measured, _met(values == sorted(values))])
    if results.runs(world, "avsa"):
        lowers, changes = (_mean(results, world, "avsa", key) for key in ("turn_lowers", "together_changes"))
        curve = [run["end"]["score_by_turn"] for run in results.runs(world, "avsa")]
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
    )


def cell(key: str, spread: Spread) -> str:
    """Shares in percent, the rest as it is, with the deviation over seeds."""
    if key.startswith(PERCENT):
        return f"{100 * spread.mean:.1f} ± {100 * spread.std:.1f}"
    digits = 1 if spread.mean >= 1 else 4
    return f"{spread.mean:.{digits}f} ± {spread.std:.{digits}f}"
