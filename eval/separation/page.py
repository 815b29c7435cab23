"""The tables of docs/separation-evidence.md, made from eval/results/separation.json.

    python -m eval.separation.page            writes them
    python -m eval.separation.page --check    fails where a table of the page is not what the file gives

The page is written by hand around its tables, which stand between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from avssl.cli.common import run
from eval.pages import Tables, keep
from eval.separation import tables

PAGE = Path("docs/separation-evidence.md")
FIGURES = Path("docs/figures")
RESULTS = Path("eval/results")
COMMANDS = {"separation": "make evidence-separation"}
TABLES: Tables = {
    "conditions": (("separation",), tables.condition_table),
    "classes": (("separation",), tables.class_table),
    "kinds": (("separation",), tables.kind_table),
    "song": (("separation",), tables.song_table),
    "parts": (("separation",), tables.parts_table),
    "machine": (("separation",), tables.machine_line),
}


def main(argv: list[str]) -> int:
    return keep(PAGE, RESULTS, FIGURES, TABLES, COMMANDS, draw, argv, __doc__ or "")


def draw(results: Path, folder: Path) -> None:
    """SI-SDRi by class beside the oracle's."""
    from eval.robustness.summary import Results
    from eval.separation.figures import class_figure

    path = results / "separation.json"
    if path.exists():
        class_figure(Results.read(path), folder / "separation-classes.png")


if __name__ == "__main__":
    sys.argv[0] = "eval.separation.page"
    run(main)
