"""Layouts by name. No torch until one is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from avssl.errors import ModelError

if TYPE_CHECKING:
    from avssl.published.checkpoint import Checkpoint
    from avssl.published.layout import Layout

LAYOUTS = {  # name -> module and what in it is the layout
    "avid": "avid:LAYOUT",
    "avsa": "avsa:LAYOUT",
    "panns_clips": "panns:CLIPS",
    "panns_frames": "panns:FRAMES",
    "uss": "uss:LAYOUT",
    "audiosep": "audiosep:LAYOUT",
}


def get_layout(name: str) -> Layout:
    """The layout of one of the names in `LAYOUTS`."""
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(importlib.import_module(f"avssl.published.{module}"), attribute)


def recognise(checkpoint: Checkpoint, kind: str | None = None) -> Layout:
    """The layout whose names and shapes are exactly those of the checkpoint, among all or the one named `kind`.

    Raises ModelError with the difference from the closest one, or where several fit and `kind` must say which.
    """
    differences = {name: get_layout(name).difference(checkpoint.model) for name in ([kind] if kind else LAYOUTS)}
    fitting = [name for name, difference in differences.items() if not difference]
    if len(fitting) > 1:
        raise ModelError(
            f"{checkpoint.path}: fits the layouts {' and '.join(fitting)}, which no name or shape tells apart; say with"
            " --kind which it is (docs/convert.md)"
        )
    closest = min(differences, key=lambda name: len(differences[name]))
    if difference := differences[closest]:
        relation = "is not of the layout" if kind else "has no known layout; it differs least from"
        raise ModelError(
            f"{checkpoint.path}: {relation} {closest} ({get_layout(closest).title}): {difference}; "
            f"layouts: {', '.join(LAYOUTS)}"
        )
    return get_layout(closest)
