"""The files of a fine-tuning beside its model: results, tables, a page with confusion matrix and wrong examples."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from avssl import __version__, files
from avssl.errors import AvsslError
from avssl.finetuning.judged import Judged
from avssl.finetuning.split import Labelled
from avssl.pages import render

RESULTS, PAGE = "results.json", "report.html"
WRONG_SHOWN = 24
_PICTURE_PX = 160
_LARGEST_TABLE = 40  # classes that a confusion matrix still shows legibly

_CARD = """\
# {name}

A classifier of {classes} classes on the {modalities} features of `{model}`, made by avssl {version}.

| measure | value |
| --- | --- |
{rows}

Measured on: {judged} ({count} files).

```python
import avssl
model = avssl.load("PATH/TO/THIS/FOLDER")
model.classify_file("clip.mp4")   # {{class: probability}}, likeliest first
```

The classes, and the licence of the weights where it is known, are in `config.json`. The classifier reflects the data
that it was shown, with their biases.
"""


def write_report(out: Path, results: dict[str, Any], judged: Judged, labelled: Labelled) -> None:
    """Write the tables, the page and results.json into the folder `out`."""
    predictions = _predictions(judged, labelled)
    _write_csv(out / "predictions.csv", predictions)
    names = labelled.classes
    matrix = [
        dict(zip(["truth", *names], [n, *r], strict=True)) for n, r in zip(names, results["confusion"], strict=True)
    ]
    _write_csv(out / "confusion.csv", matrix)
    page = render(
        Path(__file__).parent / "report.html.j2",
        results=results,
        matrix=_shaded(results["confusion"], names) if len(names) <= _LARGEST_TABLE else None,
        by_class=_by_class(judged, labelled),
        wrong=_wrong(judged, labelled),
        wrong_total=int((~judged.right(labelled)).sum()),
    )
    files.write_atomic(out / PAGE, lambda file: file.write(page.encode()))
    files.write_json(out / RESULTS, results)


def card_of(results: dict[str, Any]) -> str:
    """The README of the model folder."""
    return _CARD.format(
        name=results["name"],
        classes=len(results["classes"]),
        modalities=" and ".join(results["modalities"]),
        model=results["model"]["source"],
        version=__version__,
        rows="\n".join(f"| {key} | {value:.3f} |" for key, value in results["metrics"].items()),
        judged=results["judged"],
        count=results["counts"]["judged"],
    )


def _predictions(judged: Judged, labelled: Labelled) -> list[dict[str, Any]]:
    rows = []
    for file, chances in zip(judged.files.tolist(), judged.chances, strict=True):
        answer = int(chances.argmax())
        rows.append(
            {
                "path": str(labelled.paths[file]),
                "truth": labelled.classes[labelled.labels[file]],
                "answer": labelled.classes[answer],
                "probability": round(float(chances[answer]), 4),
            }
        )
    return rows


def _shaded(confusion: list[list[int]], names: list[str]) -> list[dict[str, Any]]:
    """Rows of cells with the share of their row, for the page."""
    rows = []
    for place, (name, counts) in enumerate(zip(names, confusion, strict=True)):
        total = sum(counts)
        cells = [
            {"count": count, "share": count / total if total else 0.0, "right": column == place}
            for column, count in enumerate(counts)
        ]
        rows.append({"name": name, "cells": cells, "total": total})
    return rows


def _by_class(judged: Judged, labelled: Labelled) -> list[dict[str, Any]]:
    right, truth, answer = judged.right(labelled), labelled.labels[judged.files], judged.chances.argmax(1)
    rows = []
    for number, name in enumerate(labelled.classes):
        of, said = truth == number, answer == number
        rows.append(
            {
                "name": name,
                "files": int((labelled.labels == number).sum()),
                "judged": int(of.sum()),
                "found": float(right[of].mean()) if of.any() else None,
                "trusted": float(right[said].mean()) if said.any() else None,
            }
        )
    return rows


def _wrong(judged: Judged, labelled: Labelled) -> list[dict[str, Any]]:
    """The surest wrong answers, with a picture where there is one."""
    sure = judged.chances.max(1)
    places = np.flatnonzero(~judged.right(labelled))
    found = []
    for place in places[np.argsort(-sure[places], kind="stable")][:WRONG_SHOWN]:
        chances, path = judged.chances[place], labelled.paths[judged.files[place]]
        best = [(labelled.classes[number], float(chances[number])) for number in np.argsort(-chances)[:3]]
        truth = labelled.labels[judged.files[place]]
        found.append(
            {
                "path": str(path),
                "truth": labelled.classes[truth],
                "truth_chance": float(chances[truth]),
                "best": best,
                "picture": _picture(path),
            }
        )
    return found


def _picture(path: Path) -> str | None:
    """The middle frame as a data URI; None for a file without pictures."""
    from avssl.media import encode_jpeg, open_media

    try:
        with open_media(path) as media:
            video = media.info.video
            if video is None:
                return None
            at_s = video.start_s + video.duration_s / 2
            picture = media.frames_at([at_s], short_side_px=min(_PICTURE_PX, video.height_px, video.width_px)).data[0]
    except (AvsslError, OSError):  # its clips were readable, this moment is not
        return None
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(picture)).decode()


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_atomic(path, lambda file: file.write(text.getvalue().encode()))
