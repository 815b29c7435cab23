"""A list of FSD50K for `avssl-shards build`.

ROOT is the folder that holds the unpacked parts:
    FSD50K.dev_audio/ID.wav, FSD50K.eval_audio/ID.wav, FSD50K.ground_truth/dev.csv, FSD50K.ground_truth/eval.csv
with the columns fname, labels, mids and, in dev.csv, split (train or val).

A file has several labels: they are in the metadata as `labels`, and `label` stays empty.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list


def rows(root: Path, subset: str) -> Iterator[dict]:
    part = "eval" if subset == "eval" else "dev"
    with (root / "FSD50K.ground_truth" / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if subset == "eval" or line["split"] == subset:
                path = f"FSD50K.{part}_audio/{line['fname']}.wav"
                yield {"path": path, "labels": line["labels"].split(","), "subset": subset}


def main() -> None:
    arguments = parser(__doc__, root="the folder of the unpacked parts")
    arguments.add_argument("--subset", choices=["train", "val", "eval"], default="train", help="default: %(default)s")
    args = arguments.parse_args()
    write_list(args.out, args.root, rows(args.root, args.subset))


if __name__ == "__main__":
    main()
