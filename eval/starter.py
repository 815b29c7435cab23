"""What the features of `starter` are worth on real clips: classes of unseen videos and sounds, and finding a partner.

    AVSSL_MEDIA=FOLDER python -m eval.starter

writes eval/results/starter.json and the table of docs/finetune.md (--table: that alone, from the file). Classes:
sources in parts, each judged by what the others teach (`avssl-finetune`'s own code). Partners: some videos are held
out, `avssl-align`'s heads are fitted to the others, and each held-out picture looks for its sound among those of all
held-out videos, and the other way round; many draws of held-out videos.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from avssl.cli.common import Parser, progress, run
from avssl.errors import UsageError
from avssl.files import read_json, write_atomic, write_json

RESULT, PAGE = Path("eval/results/starter.json"), Path("docs/finetune.md")
BEGIN, END = "<!-- table starter -->\n", "<!-- end -->"
WINDOW_S, HOP_S, FOLDS, STRENGTH = 2.0, 1.0, 9, 10.0
HELD_OUT, DRAWS = 8, 40
PLACES = (1, 2, 4)


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m eval.starter", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="starter")
    parser.add_argument("--work", type=Path, default=Path("build/starter"), help="tables (default: %(default)s)")
    parser.add_argument("--result", type=Path, default=RESULT, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the table (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="measure nothing, make the table from the result file")
    args = parser.parse_args(argv)
    if not args.table:
        measure(args)
    result = read_json(args.result)
    before, _, rest = args.page.read_text().partition(BEGIN)
    page = before + BEGIN + table_of(result) + END + rest.partition(END)[2]
    write_atomic(args.page, lambda file: file.write(page.encode()))
    print(table_of(result), end="")
    return 0


def measure(args) -> None:
    """Write the result file."""
    media = os.environ.get("AVSSL_MEDIA")
    if not media:
        raise UsageError("AVSSL_MEDIA names no folder of real media, which is what is measured")
    import avssl
    from avssl.environment import environment
    from avssl.evaluation.results import model_facts

    started_s = time.monotonic()
    model = avssl.load(args.model, kind="two_tower")
    videos, seen, unseen = _windows(model, args, Path(media) / "av_labelled", ["video", "audio"])
    sounds, heard, unheard = _windows(model, args, Path(media) / "sounds_fsdk10", ["audio"])
    modalities = {"video": ["video"], "audio": ["audio"], "both": ["video", "audio"]}
    result: dict[str, Any] = {
        "settings": {
            "window_s": WINDOW_S,
            "hop_s": HOP_S,
            "folds": FOLDS,
            "strength": STRENGTH,
            "held_out": HELD_OUT,
            "draws": DRAWS,
            "seed": 0,
        },
        "videos": {name: classes_of(videos, seen, chosen) for name, chosen in modalities.items()},
        "sounds": {"audio": classes_of(sounds, heard, ["audio"])},
        "partners": partners(seen),
        "counts": {"videos": len(videos.paths), "sounds": len(sounds.paths), "skipped": len(unseen) + len(unheard)},
        "skipped": [*unseen, *unheard],
        "model": model_facts(args.model),
        "wall_s": round(time.monotonic() - started_s, 1),
        "environment": environment("cpu"),
    }
    write_json(args.result, result)


def table_of(result: dict[str, Any]) -> str:
    """Markdown: what was asked, of how many, chance, nearest class mean, linear head; and finding of partners."""
    lines = ["| asked | judged | chance | nearest class mean | `avssl-finetune` |", "| --- | --- | --- | --- | --- |"]
    asked = [(f"class of an unseen video, by {name}", found) for name, found in result["videos"].items()]
    for name, found in [*asked, ("class of an unseen sound", result["sounds"]["audio"])]:
        cells = [f"{name} ({found['classes']} classes)", str(found["judged"]), f"{found['chance']:.0%}"]
        cells += [f"{found[f'{head}_right']} right" for head in ("nearest_mean", "linear")]
        lines.append(f"| {' | '.join(cells)} |")
    partners = result["partners"]
    pairs = ", ".join(
        f"R@{k} {partners['recall'][k]:.2f} (chance {partners['chance'][k]:.2f})" for k in partners["chance"]
    )
    return (
        "\n".join(lines)
        + f"\n\nPicture and sound of {partners['held_out']} held-out videos, after `avssl-align` on the other"
        f" {partners['videos'] - partners['held_out']}: {pairs}, mean of {partners['draws']} draws and both ways.\n"
    )


def _windows(model, args, folder: Path, modalities: list[str]):
    """Labelled files, their windows, and what could not be read."""
    from avssl.finetuning.features import pooled_windows
    from avssl.finetuning.split import read_labelled

    labelled = read_labelled(str(folder))
    with progress(folder.name, len(labelled.paths)) as advance:
        windows, failed = pooled_windows(
            model, args.model, labelled.paths, modalities, args.work / f"{folder.name}.npz",
            window_s=WINDOW_S, hop_s=HOP_S, advance=advance,
        )  # fmt: skip
    return labelled, windows, [{"item": labelled.paths[n].name, "cause": cause} for n, cause in failed.items()]


def classes_of(labelled, windows, modalities: list[str]) -> dict[str, Any]:
    """Right answers of the solved head and of the nearest class mean for files of unseen sources."""
    from avssl.finetuning.solve import judged
    from avssl.finetuning.split import cut

    chosen = windows._replace(
        vectors={name: windows.vectors[name] for name in modalities},
        has={name: windows.has[name] for name in modalities},
    )
    chosen = chosen.rows(np.logical_or.reduce([chosen.has[name] for name in modalities]))
    usable = np.isin(np.arange(len(labelled.paths)), chosen.file)
    folds = np.where(usable, cut(labelled.labels, labelled.groups, FOLDS, 0), 0)
    right = {"nearest_mean": 0, "linear": 0}
    for fold in np.unique(folds[folds > 0]):
        learn, judge = np.flatnonzero(usable & (folds != fold)), np.flatnonzero(folds == fold)
        for name, head in (("nearest_mean", "cosine"), ("linear", "linear")):
            right[name] += int(judged(head, STRENGTH, labelled, chosen, learn, judge).right(labelled).sum())
    asked = int((folds > 0).sum())
    truth = labelled.labels[folds > 0]
    return {
        "files": int(usable.sum()),
        "classes": len(labelled.classes),
        "judged": asked,
        "judged_classes": len(np.unique(truth)),
        "chance": float(np.bincount(truth).max() / asked),
        **{f"{name}_right": count for name, count in right.items()},
        **{f"{name}_accuracy": count / asked for name, count in right.items()},
    }


def partners(windows) -> dict[str, Any]:
    """R@k both ways among held-out videos (the mean of a video's windows), over draws of them."""
    from avssl.embedding.align import align
    from avssl.evaluation.retrieval import retrieval
    from avssl.finetuning.heads import unit

    both = windows.rows(windows.has["video"] & windows.has["audio"])
    files = np.unique(both.file)
    recalls, dims = [], []
    for draw in range(DRAWS):
        held = np.random.default_rng([0, draw]).permutation(files)[:HELD_OUT]
        test = np.isin(both.file, held)
        aligned, choice = align(both.vectors["video"][~test], both.vectors["audio"][~test], both.file[~test], seed=draw)
        sides = []
        for projection, name in ((aligned.first, "video"), (aligned.second, "audio")):
            z = unit(projection(both.vectors[name][test]))
            sides.append(unit(np.stack([z[both.file[test] == file].mean(0) for file in held])))
        for one, other in (sides, sides[::-1]):
            recalls.append([retrieval(one, other, ks=PLACES).recall[k] for k in PLACES])
        dims.append(choice.dim)
    values = np.array(recalls)
    return {
        "videos": len(files),
        "held_out": HELD_OUT,
        "draws": DRAWS,
        "median_dim": float(np.median(dims)),
        "recall": {str(k): float(value) for k, value in zip(PLACES, values.mean(0), strict=True)},
        "recall_std": {str(k): float(value) for k, value in zip(PLACES, values.std(0), strict=True)},
        "chance": {str(k): k / HELD_OUT for k in PLACES},
    }


if __name__ == "__main__":
    run(main, sys.argv[1:])
