"""Layouts by name. No torch until one is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from avssl.errors import ModelError

if TYPE_CHECKING:
    from avssl.published.checkpoint import Checkpoint
    from avssl.published.layout import Layout

LAYOUTS = ("avid", "avsa")  # each is the module of this name, whose LAYOUT is the layout


def get_layout(name: str) -> Layout:
    """The layout of one of the names in `LAYOUTS`."""
    return importlib.import_module(f"avssl.published.{name}").LAYOUT


def recognise(checkpoint: Checkpoint, kind: str | None = None) -> Layout:
    """The layout whose names and shapes are exactly those of the checkpoint, among all or the one named `kind`.

    Raises ModelError with the difference from the closest one.
    """
    differences = {name: get_layout(name).difference(checkpoint.model) for name in ([kind] if kind else LAYOUTS)}
    closest = min(differences, key=lambda name: len(differences[name]))
    if difference := differences[closest]:
        relation = "is not of the layout" if kind else "has no known layout; it differs least from"
        raise ModelError(
            f"{checkpoint.path}: {relation} {closest} ({get_layout(closest).title}): {difference}; "
            f"layouts: {', '.join(LAYOUTS)}"
        )
    return get_layout(closest)
