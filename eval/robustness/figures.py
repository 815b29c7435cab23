"""The figures of docs/robust-xid.md, from result files alone. Needs matplotlib (`pip install avssl[eval]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.robustness.summary import Results

STYLE = {  # Okabe and Ito's colours, told apart by most people
    "xid": ("#666666", "o", "-"),
    "oracle": ("#000000", "s", ":"),
    "weighted": ("#0072B2", "^", "-"),
    "soft_bootstrapping": ("#56B4E9", "v", "-"),
    "soft_cycle": ("#E69F00", "v", "-"),
    "robust": ("#D55E00", "D", "-"),
    "robust_bootstrapping": ("#009E73", "P", "-"),
}
NOISE = {0: "mismatch_0", 30: "mismatch_30", 50: "mismatch_50"}
PANELS = {
    "probe_video": "linear probe, picture",
    "class_at_1": "class R@1 between modalities",
    "instance_at_10": "own clip among the first 10",
}
STRATEGIES = ("bootstrapping", "swapped", "neighbor", "cycle")


def noise_figure(results: Results, path: Path) -> None:
    """What wrong pairs cost each method."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(PANELS), figsize=(10, 3.4), layout="constrained")
    for axis, (measure, title) in zip(axes, PANELS.items(), strict=True):
        for method, (colour, marker, line) in STYLE.items():
            points = [(x, s) for x, world in NOISE.items() if (s := results.spread(world, method, measure)) is not None]
            axis.errorbar(
                [x for x, _ in points],
                [100 * s.mean for _, s in points],
                [100 * s.std for _, s in points],
                color=colour, marker=marker, linestyle=line, markersize=5, capsize=2, label=results.methods[method],
            )  # fmt: skip
        axis.set(title=title, xlabel="mismatched training pairs, %", xticks=list(NOISE))
    axes[0].set_ylabel("%")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def weights_figure(results: Results, world: str, method: str, path: Path) -> None:
    """How well weights find the wrong pairs: over the second phase, and at its end."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for name in ("xid", "weighted", "robust", "robust_bootstrapping"):
        colour, _, _ = STYLE[name]
        traces = np.array([run["auroc_by_step"] for run in results.runs(world, name)])
        start = results.spread(world, name, "auroc", "warm_up")
        if start is None:
            continue
        steps = np.concatenate([[0], traces[0, :, 0]])
        mean = np.concatenate([[start.mean], traces[:, :, 1].mean(0)])
        std = np.concatenate([[start.std], traces[:, :, 1].std(0, ddof=1) if len(traces) > 1 else 0 * traces[0, :, 1]])
        left.plot(steps, mean, color=colour, label=results.methods[name])
        left.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    left.axhline(0.9, color="#999999", linewidth=0.8, linestyle="--")
    left.set(xlabel="steps of the second phase", ylabel="AUROC", title="finding mismatched pairs (goal: above 0.9)")
    left.legend(frameon=False, fontsize=8)
    bins = np.arange(10) / 10
    for name, colour, shift in (("right", "#009E73", 0.0), ("wrong", "#D55E00", 0.045)):
        shares = np.mean([run["end"][f"weights_{name}"] for run in results.runs(world, method)], axis=0)
        right.bar(bins + shift + 0.028, 100 * shares, width=0.042, color=colour, label=f"{name} pairs")
    right.set(xlabel="weight", ylabel="% of these pairs", title=f"weights at the end, {results.methods[method]}")
    right.legend(frameon=False, fontsize=8)
    save(figure, path)


def soft_figure(results: Results, worlds: dict[str, str], path: Path) -> None:
    """Where soft targets put the mass that does not go to the own partner."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(worlds), figsize=(10, 3.0), layout="constrained", sharey=True)
    for axis, (world, title) in zip(axes, worlds.items(), strict=True):
        for shift, kind, colour in ((-0.2, "soft_{}", "#56B4E9"), (0.2, None, "#D55E00")):
            names = [kind.format(s) if kind else _with_weights(s) for s in STRATEGIES]
            spreads = [results.spread(world, name, "soft_class") for name in names]
            at = [place + shift for place, spread in enumerate(spreads) if spread is not None]
            shown = [spread for spread in spreads if spread is not None]
            axis.bar(
                at,
                [100 * spread.mean for spread in shown],
                0.36,
                yerr=[100 * spread.std for spread in shown],
                color=colour,
                capsize=2,
                label="without weights" if kind else "with weights",
            )
        chance = results.spread(world, "soft_cycle", "soft_class_chance")
        assert chance is not None
        axis.axhline(100 * chance.mean, color="black", linestyle="--", linewidth=1, label="chance")
        axis.set(title=title, xticks=range(len(STRATEGIES)))
        axis.set_xticklabels(STRATEGIES, rotation=20, ha="right")
    axes[0].set_ylabel("% on the own class")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    save(figure, path)


def ablation_figure(shares: Sequence[tuple[str, float, float, float]], title: str, path: Path) -> None:
    """What each change does to the share that is won back: (label, share, low, high), from top to bottom."""
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.28 * len(shares)), layout="constrained")
    for place, (_, share, low, high) in enumerate(reversed(shares)):
        axis.plot([100 * low, 100 * high], [place, place], color="#0072B2", linewidth=2)
        axis.plot(100 * share, place, "o", color="#0072B2")
    axis.axvline(0, color="#666666", linewidth=0.8)
    axis.axvline(90, color="#999999", linewidth=0.8, linestyle="--")
    axis.set(title=title, xlabel="won back of what xID loses, % (dashed: the goal)", yticks=range(len(shares)))
    axis.set_yticklabels([label for label, *_ in reversed(shares)])
    save(figure, path)


def _with_weights(strategy: str) -> str:
    return "robust" if strategy == "cycle" else f"robust_{strategy}"


def pyplot() -> Any:
    """Matplotlib set up for files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def save(figure: Any, path: Path) -> None:
    """Write it and let go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})  # no version: equal numbers give equal files
    pyplot().close(figure)
