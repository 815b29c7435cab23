"""The figures of docs/avsa-evidence.md, from result files alone. Needs matplotlib (`pip install avssl[eval]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.alignment.measure_names import TURNS_DEG
from eval.robustness.figures import pyplot, save
from eval.robustness.summary import Results

COLOURS = ("#0072B2", "#E69F00", "#666666", "#D55E00", "#009E73", "#56B4E9", "#CC79A7", "#000000")
TASKS = {"avsa_bin_4": "AVSA-Bin", "avc_bin_4": "AVC-Bin"}


def bin_figure(results: Results, worlds: Sequence[str], methods: Sequence[str], path: Path) -> None:
    """Accuracy of the two tasks at 4 views by pretraining and world, every seed a dot; open dots: with transformer."""
    plt = pyplot()
    present = [name for name in methods if any(results.runs(world, name) for world in worlds)]
    size = (9, 1.0 + 0.35 * len(present))
    figure, axes = plt.subplots(1, len(TASKS), figsize=size, layout="constrained", sharey=True)
    for axis, (task, title) in zip(axes, TASKS.items(), strict=True):
        for number, (world, colour) in enumerate(zip(worlds, COLOURS, strict=False)):
            lift = 0.5 * (number - (len(worlds) - 1) / 2) / len(worlds)
            axis.plot([], [], "o", color=colour, markersize=4, label=results.worlds[world])
            for place, name in enumerate(reversed(present)):
                for key, face in ((task, colour), (f"{task}_transformer", "none")):
                    values = 100 * results.values(world, name, key)
                    axis.plot(values, [place - lift] * len(values), "o", color=colour, mfc=face, markersize=4)
        axis.axvline(50, color="#999999", linewidth=0.8, linestyle="--")
        axis.set(title=f"{title}, 4 views", xlabel="% (dashed: chance)", yticks=range(len(present)))
    axes[0].set_yticklabels([results.methods[name] for name in reversed(present)])
    axes[1].legend(frameon=False, fontsize=8)
    save(figure, path)


def turn_figure(results: Results, world: str, methods: Sequence[str], path: Path) -> None:
    """The alignment score over the yaw by which the sound is turned, less its mean; a band is a deviation of seeds."""
    import numpy as np

    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    degrees = [*TURNS_DEG, 360]
    for name, colour in zip(methods, COLOURS, strict=False):
        curves = np.array([run["end"]["score_by_turn"] for run in results.runs(world, name)])
        if len(curves):
            curves = np.concatenate([curves, curves[:, :1]], 1) - curves.mean(1, keepdims=True)
            mean, std = curves.mean(0), curves.std(0, ddof=1) if len(curves) > 1 else 0 * curves[0]
            axis.plot(degrees, mean, color=colour, marker="o", markersize=3, label=results.methods[name])
            axis.fill_between(degrees, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axis.set(xlabel="yaw of the sound against the picture, °", ylabel="score less its mean", xticks=degrees)
    axis.legend(frameon=False, fontsize=8)
    save(figure, path)
