"""A list of Kinetics-400, -600 or -700 for `avssl-shards build`.

ANNOTATIONS is an official CSV with the columns label, youtube_id, time_start, time_end, split.
ROOT holds the clips, already cut, in one folder or in one folder a class:
    ID_000010_000020.mp4    or    riding a bike/ID_000010_000020.mp4
(the numbers are time_start and time_end; .mkv, .webm and .avi are found too).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list

_EXTENSIONS = {".mp4", ".mkv", ".webm", ".avi"}


def rows(annotations: Path, root: Path) -> Iterator[dict]:
    found = {
        path.stem: path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.suffix in _EXTENSIONS
    }
    with annotations.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            start, end = (int(float(line[key])) for key in ("time_start", "time_end"))
            name = f"{line['youtube_id']}_{start:06d}_{end:06d}"
            # The lists of the test sets carry no label.
            row = {"path": found.get(name, f"{name}.mp4"), "youtube_id": line["youtube_id"], "from_s": start}
            yield row | {"subset": line.get("split", "")} | ({"label": line["label"]} if line.get("label") else {})


def main() -> None:
    arguments = parser(__doc__, root="the folder of clips")
    arguments.add_argument("--annotations", type=Path, required=True, help="e.g. train.csv")
    args = arguments.parse_args()
    write_list(args.out, args.root, rows(args.annotations, args.root))


if __name__ == "__main__":
    main()
