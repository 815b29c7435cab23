"""`report.html`: everything the demo found on one page that needs neither network nor script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from avssl.files import write_atomic
from avssl.pages import render
from pipelines.demo.clips import MANY_VIDEOS
from pipelines.demo.examples import retrieval_examples
from pipelines.demo.measure import NEIGHBOURS, Embedded

GOLDEN = 0.618034
MAP_SIZE = (760, 460)
CURVE_SIZE = (760, 240)
MARGIN = 36
MOST_POINTS = 1500  # of each modality in the map
MOST_CLASSES = 24  # in the legend


def write_report(path: Path, results: dict[str, Any], held_out: Embedded, shards: Path) -> None:
    """Write the page. `results` is what results.json holds; `held_out` the embeddings of the clips in `shards`."""
    page = render(
        Path(__file__).parent / "template.html.j2",
        filters={"percent": lambda share: f"{100 * share:.0f} %", "number": lambda value: f"{value:g}"},
        **results,
        neighbours=NEIGHBOURS,
        few_videos=results["measures"]["train"]["videos"] < MANY_VIDEOS,
        curve_plot=curve_plot(results["curve"], results["batch_size"]),
        map_plot=map_plot(held_out),
        examples=retrieval_examples(held_out, shards),
    )
    write_atomic(path, lambda file: file.write(page.encode()))


def curve_plot(curve: list[dict[str, float]], batch_size: int) -> dict[str, Any]:
    """The loss over steps as points of a picture of `CURVE_SIZE`, with its axes, and the loss of mere guessing."""
    width, height = CURVE_SIZE
    guessing = float(np.log(batch_size))
    steps = np.array([point["step"] for point in curve], float)
    losses = np.array([point["loss"] for point in curve], float)
    top = 1.08 * max(guessing, losses.max(initial=0.0))
    last = max(steps.max(initial=1.0), 1.0)

    def x(step: Any) -> Any:
        return np.round(MARGIN + (width - 2 * MARGIN) * np.asarray(step) / last, 1)

    def y(loss: Any) -> Any:
        return np.round(height - MARGIN - (height - 2 * MARGIN) * np.asarray(loss) / top, 1)

    return {
        "width": width,
        "height": height,
        "left": MARGIN,
        "right": width - MARGIN,
        "bottom": height - MARGIN,
        "line": " ".join(f"{a},{b}" for a, b in zip(x(steps), y(losses), strict=True)),
        "guessing": {"y": float(y(guessing)), "loss": guessing},
        "x_ticks": [{"x": float(x(tick)), "text": f"{tick:.0f}"} for tick in np.linspace(0, last, 5)],
        "y_ticks": [{"y": float(y(tick)), "text": f"{tick:.1f}"} for tick in np.linspace(0, guessing, 4)],
        "first": float(losses[0]) if len(losses) else None,
        "last": float(losses[-1]) if len(losses) else None,
    }


def map_plot(embedded: Embedded) -> dict[str, Any]:
    """Both modalities in the plane of their two main directions (PCA), as points of a picture of `MAP_SIZE`."""
    width, height = MAP_SIZE
    chosen = np.linspace(0, len(embedded.rows) - 1, min(len(embedded.rows), MOST_POINTS)).astype(int)
    # Each modality's own mean is taken out: the gap between the two says nothing about what belongs together.
    centred = [vectors[chosen] - vectors[chosen].mean(axis=0) for vectors in embedded.vectors.values()]
    flat, share = main_plane(np.concatenate(centred))
    low, high = flat.min(axis=0), flat.max(axis=0)
    flat = MARGIN / 2 + (flat - low) / np.maximum(high - low, 1e-9) * (np.array([width, height]) - MARGIN)
    names = sorted(set(embedded.labels[chosen]) - {""}) or sorted(set(embedded.sources[chosen]))
    what = embedded.labels if names and names[0] in set(embedded.labels) else embedded.sources
    colours = {name: f"hsl({360 * (number * GOLDEN % 1):.0f} 65% 50%)" for number, name in enumerate(names)}
    points = [
        {
            "x": round(float(place[0]), 1),
            "y": round(float(place[1]), 1),
            "kind": kind,
            "colour": colours.get(what[index], "#888"),
            "text": f"{what[index]}: {embedded.sources[index]}",
        }
        for kind, places in zip(embedded.vectors, np.split(flat, 2), strict=True)
        for index, place in zip(chosen, places, strict=True)
    ]
    legend = [{"name": name, "colour": colours[name]} for name in names[:MOST_CLASSES]]
    return {
        "width": width,
        "height": height,
        "points": points,
        "legend": legend,
        "more": len(names) - len(legend),
        "share": share,
    }


def main_plane(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Coordinates [N, 2] of centred rows [N, D] along their two main directions, and their share of the variance.

    The sign of each direction is fixed, so the same rows give the same picture.
    """
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    plane = directions[:2] * np.sign(directions[:2, np.abs(directions[:2]).argmax(axis=1)].diagonal())[:, None]
    total = float((values**2).sum())
    return rows @ plane.T, float((values[:2] ** 2).sum() / total) if total else 0.0
