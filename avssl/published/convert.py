"""From a published file to a model folder, and back to a published file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avssl import files
from avssl.errors import AvsslError, UsageError
from avssl.published.checkpoint import read_checkpoint
from avssl.published.layout import Choices
from avssl.published.output import refuse_existing_file, refuse_foreign_folder, write_folder
from avssl.published.registry import get_layout, recognise


@dataclass
class Report:
    """What was made of what."""

    source: str
    output: str
    layout: str
    facts: dict[str, Any] = field(default_factory=dict)  # as in config.json
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def convert(
    source: Path, output: Path, choices: Choices, *, kind: str | None = None, banks_file: Path | None = None
) -> Report:
    """Write the model folder `output` from the published file `source`.

    kind: a name of `registry.LAYOUTS`; by default the layout is found out from names and shapes. banks_file: an .npz
    to be written with the memory banks of the checkpoint.

    Raises ModelError for a file that is damaged, hostile or of no known layout, UsageError for an output in the way.
    """
    refuse_foreign_folder(output)
    if banks_file:
        refuse_existing_file(banks_file)
    checkpoint = read_checkpoint(source)
    layout = recognise(checkpoint, kind)
    conversion = layout.convert(checkpoint, choices)
    if banks_file and not conversion.banks:
        raise UsageError(f"{source}: no memory banks were found in it; leave --banks away")
    if conversion.banks and not banks_file:
        conversion.left_out.append("memory banks")
    facts = conversion.facts
    facts["left_out"] = conversion.left_out
    with _writing(output):
        write_folder(output, lambda folder: layout.write(folder, conversion))
    if banks_file:
        with _writing(banks_file):
            files.write_atomic(banks_file, lambda file: np.savez(file, **conversion.banks))  # type: ignore[arg-type]
    return Report(str(source), str(output), layout.name, facts, conversion.left_out, conversion.warnings)


def revert(folder: Path, output: Path, kind: str) -> Report:
    """Write the published file `output` from a model folder: the inverse of `convert`, bit by bit.

    What the layout has no place for stays behind: inputs, statistics of the front end, optimizer, banks.
    Raises ModelError if the folder's model is not of the layout, UsageError if `output` exists.
    """
    refuse_existing_file(output)
    layout = get_layout(kind)
    content = layout.revert(folder)
    with _writing(output):
        files.write_atomic(output, lambda file: torch.save(content, file))
    left_out = ["preprocessing and the front end's statistics (config.json)"]
    entries = len(content.get("model") or content["state_dict"])
    return Report(str(folder), str(output), layout.name, {"entries": entries}, left_out)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AvsslError(f"{output}: cannot be written: {error.strerror or error}") from error
