"""`report.html`: the mixture and each source, to see and to hear, on one page that needs neither network nor script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avssl.files import write_atomic
from avssl.pages import render
from avssl.separation.picture import HEARD_S, SoundPicture


def write_report(path: Path, facts: dict[str, Any], pictures: Sequence[SoundPicture]) -> None:
    """Write the page.

    facts: what `separate_file` returns. pictures: of its sources, of the residual, of the mixture.
    """
    loudest = pictures[-1].loudest
    *sources, residual, mixture = [{"picture": one.png(loudest), "sound": one.mp3()} for one in pictures]
    cards = [{**source, **shown} for source, shown in zip(facts["sources"], sources, strict=True)]
    page = render(
        Path(__file__).parent / "report.html.j2",
        filters={"decibels": lambda value: "silent" if value is None else f"{value:+.1f} dB"},
        input=facts["input"],
        mixture=mixture,
        residual={**facts["residual"], **residual} if facts["residual"] else None,
        forest=_forest(facts["tree"], cards) if "tree" in facts else [{**card, "children": []} for card in cards],
        is_tree="tree" in facts,
        sources=len(cards),
        cut_s=HEARD_S if facts["input"]["seconds"] > HEARD_S else None,
    )
    write_atomic(path, lambda file: file.write(page.encode()))


def _forest(tree: list[dict[str, Any]], cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cards nested as in the tree."""
    by_id = {card["id"]: card for card in cards}
    return [{**by_id[entry["id"]], "children": _forest(entry["children"], cards)} for entry in tree]
