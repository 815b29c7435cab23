"""HTML pages from templates: all values escaped, and a value that a template lacks is an error, not a gap."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def render(template: Path, *, filters: Mapping[str, Callable[..., str]] | None = None, **values: Any) -> str:
    """The text of a Jinja template, with `filters` by name."""
    import jinja2  # slow to import, and no command needs it before its work is done

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(filters or {})
    return templates.get_template(template.name).render(**values)
