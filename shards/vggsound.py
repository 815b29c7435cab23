"""A list of VGGSound for `avssl-shards build`.

ANNOTATIONS is the official vggsound.csv, lines without a header: YouTube id, start in seconds, label, train or test.
ROOT holds the ten-second clips, already cut:    ID_000030.mp4    (the number is the start in seconds)
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list


def rows(annotations: Path, subset: str, extension: str) -> Iterator[dict]:
    with annotations.open(newline="", encoding="utf-8") as file:
        for youtube_id, start, label, line_subset in csv.reader(file):
            if subset in ("all", line_subset):
                yield {
                    "path": f"{youtube_id}_{int(start):06d}.{extension}",
                    "label": label,
                    "youtube_id": youtube_id,
                    "from_s": int(start),
                    "subset": line_subset,
                }


def main() -> None:
    arguments = parser(__doc__, root="the folder of clips")
    arguments.add_argument("--annotations", type=Path, required=True, help="vggsound.csv")
    arguments.add_argument("--subset", choices=["train", "test", "all"], default="train", help="default: %(default)s")
    arguments.add_argument("--extension", default="mp4", help="of the clips (default: %(default)s)")
    args = arguments.parse_args()
    write_list(args.out, args.root, rows(args.annotations, args.subset, args.extension))


if __name__ == "__main__":
    main()
