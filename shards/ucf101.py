"""A list of UCF101 for `avssl-shards build`.

ROOT is the unpacked UCF-101 folder:          UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
SPLITS is the unpacked folder of the lists:   ucfTrainTestlist/trainlist01.txt, testlist01.txt, …

Without --splits all files are listed; packing the folder itself then does the same.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list


def rows(splits: Path, number: int, subset: str) -> Iterator[dict]:
    """The lines of one official list: "Class/v_Class_g08_c01.avi 1", the number only in the lists for training."""
    for line in (splits / f"{subset}list{number:02d}.txt").read_text().splitlines():
        if line.strip():
            yield described(line.split()[0]) | {"split": number, "subset": subset}


def described(path: str) -> dict:
    """Clips of one group are cut from the same recording: keep groups together when you split again."""
    label, name = path.split("/")
    group = re.search(r"_g(\d+)_c\d+", name)
    return {"path": path, "label": label} | ({"group": int(group[1])} if group else {})


def main() -> None:
    arguments = parser(__doc__, root="the UCF-101 folder with one folder a class")
    arguments.add_argument("--splits", type=Path, help="the ucfTrainTestlist folder")
    arguments.add_argument("--split", type=int, choices=[1, 2, 3], default=1, help="default: %(default)s")
    arguments.add_argument("--subset", choices=["train", "test"], default="train", help="default: %(default)s")
    args = arguments.parse_args()
    if args.splits is None:
        found = sorted(path.relative_to(args.root).as_posix() for path in args.root.glob("*/*.avi"))
        write_list(args.out, args.root, map(described, found))
    else:
        write_list(args.out, args.root, rows(args.splits, args.split, args.subset))


if __name__ == "__main__":
    main()
