"""The tables and figures of docs/robust-xid.md, made from the result files in eval/results.

    python -m eval.robustness.page            writes both
    python -m eval.robustness.page --check    fails where a table of the page is not what the files give

The page is written by hand around its tables, which stand between `<!-- table NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from avssl.cli.common import run
from eval.pages import Tables, fill, keep
from eval.robustness import tables
from eval.robustness.summary import Results

PAGE = Path("docs/robust-xid.md")
FIGURES = Path("docs/figures")
RESULTS = Path("eval/results")
CLEAN, MIDDLE, NOISY, REPEATED = "mismatch_0", "mismatch_30", "mismatch_50", "repeated"


def main(argv: list[str]) -> int:
    return keep(PAGE, RESULTS, FIGURES, TABLES, COMMANDS, draw, argv, __doc__ or "")


def filled(page: str, results: Path) -> str:
    """The page with every table made anew."""
    return fill(page, results, TABLES, COMMANDS)


def _world(study: str, world: str) -> tuple[tuple[str, ...], Callable[..., str]]:
    return (study,), lambda found: f"{tables.world_table(found, world)}\n\n{tables.chance_line(found, world)}"


STUDIES = {  # result file -> what it is made from
    "robustness": "eval/robustness/rendered.yaml",
    "robustness_real": "eval/robustness/real.yaml",
    "robustness_why": "eval/robustness/why.yaml",
}
COMMANDS = {name: f"python -m eval.robustness {study}" for name, study in STUDIES.items()}
TABLES: Tables = {  # name -> (the studies it needs, its maker)
    **{world: _world("robustness", world) for world in (CLEAN, MIDDLE, NOISY, REPEATED)},
    **{world: _world("robustness_real", world) for world in ("real_0", "real_50")},
    "recovery_30": (("robustness",), lambda found: tables.recovery_table(found, CLEAN, MIDDLE)),
    "recovery_50": (("robustness",), lambda found: tables.recovery_table(found, CLEAN, NOISY)),
    "why": (("robustness", "robustness_why"), lambda found, why: tables.change_table(found, why, NOISY)),
    "asked": (("robustness_why",), lambda why: tables.asked_table(why, NOISY)),
    "machine": (("robustness",), lambda found: tables.machine_line(found)),
    "machine_real": (("robustness_real",), lambda found: tables.machine_line(found)),
    "machine_why": (("robustness_why",), lambda found: tables.machine_line(found)),
}


def draw(results: Path, folder: Path) -> None:
    """All figures."""
    from eval.robustness import figures

    main_study = Results.read(results / "robustness.json")
    figures.noise_figure(main_study, folder / "robust-xid-noise.png")
    figures.weights_figure(main_study, NOISY, "robust", folder / "robust-xid-weights.png")
    worlds = {CLEAN: "no mismatches", NOISY: "50 % mismatched", REPEATED: "4 unbalanced classes"}
    figures.soft_figure(main_study, worlds, folder / "robust-xid-soft.png")


if __name__ == "__main__":
    sys.argv[0] = "eval.robustness.page"
    run(main)
