"""The tables and figures of docs/avsa-evidence.md, made from the result files in eval/results.

python -m eval.alignment.page            writes both
python -m eval.alignment.page --check    fails where a table of the page is not what the files give
"""

from __future__ import annotations

import sys
from pathlib import Path

from avssl.cli.common import run
from eval.alignment import tables
from eval.alignment.chart import beam_table
from eval.pages import Tables, fill, keep
from eval.robustness.summary import Results

PAGE = Path("docs/avsa-evidence.md")
FIGURES = Path("docs/figures")
RESULTS = Path("eval/results")
WORLD = "places"  # where all methods are compared
WORLDS = (WORLD, "faint", "plain")
PRETRAINING = ("avc", "avc_transformer", "avts", "avsa_direct", "avsa", "avsa_scratch")
VIEWS = ("avsa_2", "avsa", "avsa_8")
HEARING = ("avc", "avsa", "avc_ambisonics", "avsa_ambisonics", "avsa_stereo", "avsa_mono")
SHAPE = ("avsa", "avsa_direct", "avsa_paper", "avsa_hard", "avc_transformer")
TURNED = ("avc", "avts", "avsa", "avsa_ambisonics", "avsa_stereo", "avsa_mono")
ON_CHART = (
    (WORLD, "avc", "chart_"),
    (WORLD, "avsa", "chart_"),
    (WORLD, "avsa_ambisonics", "chart_"),
    ("chart", "chart_tetrahedral", ""),
    ("chart", "chart_ambisonics", ""),
)


def main(argv: list[str]) -> int:
    return keep(PAGE, RESULTS, FIGURES, TABLES, COMMANDS, draw, argv, __doc__ or "")


def filled(page: str, results: Path) -> str:
    """The page with every table made anew."""
    return fill(page, results, TABLES, COMMANDS)


def _methods(*names: str) -> tuple[tuple[str, ...], object]:
    return ("alignment",), lambda found: tables.method_table(found, WORLD, names)


def _shown(found: Results) -> list[str]:
    """The worlds of WORLDS that have runs."""
    return [world for world in WORLDS if any(run["world"] == world for run in found.tree["runs"])]


STUDY = "eval/alignment/full.yaml"
COMMANDS = {
    "alignment": f"python -m eval.alignment {STUDY}",
    "alignment_chart": "python -m eval.alignment.chart",
    "alignment_ceiling": f"python -m eval.alignment.ceiling {STUDY}",
}
TABLES: Tables = {
    "paper": (("alignment",), lambda found: tables.paper_table(found, _shown(found))),
    "gain": (("alignment",), lambda found: tables.gain_table(found, _shown(found))),
    "pretraining": _methods(*PRETRAINING),  # type: ignore[dict-item]
    "faint": (("alignment",), lambda found: tables.method_table(found, "faint", PRETRAINING)),
    "plain": (("alignment",), lambda found: tables.method_table(found, "plain", PRETRAINING)),
    "views": _methods(*VIEWS),  # type: ignore[dict-item]
    "hearing": _methods(*HEARING),  # type: ignore[dict-item]
    "shape": _methods(*SHAPE),  # type: ignore[dict-item]
    "goals": (("alignment",), lambda found: tables.goal_table(found, _shown(found), ON_CHART[1])),
    "ceiling": (
        ("alignment_ceiling",),
        lambda found: tables.method_table(found, WORLD, tuple(found.methods), {"auc": "AUROC"}),
    ),
    "turned": (("alignment",), lambda found: tables.method_table(found, WORLD, TURNED, tables.TURN)),
    "scores": (("alignment",), lambda found: tables.score_table(found, WORLD, TURNED)),
    "beams": (("alignment_chart",), beam_table),
    "chart": (("alignment",), lambda found: tables.chart_table(found, ON_CHART)),
    "machine": (("alignment",), tables.machine_line),
}


def draw(results: Path, folder: Path) -> None:
    """All figures."""
    from eval.alignment import figures

    if not (path := results / "alignment.json").exists():
        return
    found = Results.read(path)
    figures.bin_figure(found, _shown(found), tuple(found.methods), folder / "avsa-bin.png")
    figures.turn_figure(found, WORLD, TURNED, folder / "avsa-turns.png")


if __name__ == "__main__":
    sys.argv[0] = "eval.alignment.page"
    run(main)
