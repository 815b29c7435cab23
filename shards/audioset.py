"""A list of AudioSet for `avssl-shards build`.

ANNOTATIONS is an official list of segments (balanced_train_segments.csv, …): comment lines that begin with #, then
    YouTube id, start in seconds, end in seconds, "/m/09x0r,/t/dd00088"
CLASSES is class_labels_indices.csv (index, mid, display_name).
ROOT holds a file for each YouTube id, ID.mp4: the whole video (its segment is packed), or with --cut the segment alone.

A segment has several labels: they are in the metadata as `labels`, and `label` stays empty.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list


def rows(annotations: Path, names: dict[str, str], extension: str, cut: bool) -> Iterator[dict]:
    with annotations.open(newline="", encoding="utf-8") as file:
        lines = (line for line in file if not line.startswith("#"))
        for youtube_id, start, end, mids in csv.reader(lines, skipinitialspace=True):
            row = {"path": f"{youtube_id}.{extension}", "youtube_id": youtube_id}
            row |= {"from_s": float(start)} if cut else {"start_s": float(start), "end_s": float(end)}
            yield row | {"labels": [names[mid] for mid in mids.split(",")]}


def main() -> None:
    arguments = parser(__doc__, root="the folder of videos")
    arguments.add_argument("--annotations", type=Path, required=True, help="e.g. balanced_train_segments.csv")
    arguments.add_argument("--classes", type=Path, required=True, help="class_labels_indices.csv")
    arguments.add_argument("--cut", action="store_true", help="the files hold the segment alone")
    arguments.add_argument("--extension", default="mp4", help="of the files (default: %(default)s)")
    args = arguments.parse_args()
    with args.classes.open(newline="", encoding="utf-8") as file:
        names = {line["mid"]: line["display_name"] for line in csv.DictReader(file)}
    write_list(args.out, args.root, rows(args.annotations, names, args.extension, args.cut))


if __name__ == "__main__":
    main()
