"""A list of HMDB51 for `avssl-shards build`.

ROOT holds one unpacked folder a class:       hmdb51/brush_hair/NAME.avi
SPLITS is the unpacked folder of the lists:   testTrainMulti_7030_splits/brush_hair_test_split1.txt, …
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lists import parser, write_list

_SUBSETS = {"1": "train", "2": "test"}  # 0: the clip is not used in this split


def rows(splits: Path, number: int, subset: str) -> Iterator[dict]:
    """The lines "NAME.avi 1" of the official lists, one list a class."""
    for path in sorted(splits.glob(f"*_test_split{number}.txt")):
        label = re.sub(r"_test_split\d+$", "", path.stem)
        for line in path.read_text().splitlines():
            if line.strip():
                name, use = line.rsplit(maxsplit=1)
                if _SUBSETS.get(use) == subset:
                    yield {"path": f"{label}/{name}", "label": label, "split": number, "subset": subset}


def main() -> None:
    arguments = parser(__doc__, root="the folder with one folder a class")
    arguments.add_argument("--splits", type=Path, required=True, help="the testTrainMulti_7030_splits folder")
    arguments.add_argument("--split", type=int, choices=[1, 2, 3], default=1, help="default: %(default)s")
    arguments.add_argument("--subset", choices=["train", "test"], default="train", help="default: %(default)s")
    args = arguments.parse_args()
    write_list(args.out, args.root, rows(args.splits, args.split, args.subset))


if __name__ == "__main__":
    main()
