"""The figure of docs/separation-evidence.md, from the result file alone."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from eval.robustness.summary import Results


def class_figure(results: Results, path: Path) -> None:
    """Each unseen mixture as a point: SI-SDRi by class, right query (examples) and swapped; the oracle as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tree = results.tree
    runs = {run["method"]: run["end"] for run in tree["runs"] if run["method"] != "first"}
    best = max(runs, key=lambda kind: fmean(runs[kind]["examples"]["si_sdri"]))
    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    for label in range(len(tree["classes"])):
        mine = [number for number, found in enumerate(tree["pairs"]["label"]) if found == label]
        for query, colour, shift in (("examples", "#0072B2", -0.12), ("swapped", "#D55E00", 0.12)):
            values = [runs[best][query]["si_sdri"][number] for number in mine]
            name = f"{best}, {'right' if query == 'examples' else 'swapped'} query" if label == 0 else None
            axis.plot([label + shift] * len(values), values, "o", color=colour, markersize=4, alpha=0.7, label=name)
        oracle = fmean(tree["bounds"]["oracle"]["si_sdri"][number] for number in mine)
        axis.plot(
            [label - 0.3, label + 0.3], [oracle] * 2, color="black", linewidth=1, label=None if label else "oracle"
        )
    axis.axhline(0, color="#666666", linewidth=0.8)
    axis.set(ylabel="SI-SDRi, dB", xticks=range(len(tree["classes"])))
    axis.set_xticklabels([name.replace("_", " ") for name in tree["classes"]], rotation=25, ha="right")
    axis.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})  # no version: equal numbers give equal files
    plt.close(figure)
