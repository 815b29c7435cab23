"""Frozen features of labelled files by window, read from the table of `avssl-embed` that is made for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avssl.embedding.run import Listener, embed_to_file, options_for
from avssl.embedding.sources import FileUnit, printable
from avssl.errors import MediaError, UsageError
from avssl.models.av_model import AVModel


class Windows(NamedTuple):
    """Windows of files. vectors: of each modality [N, D] float32, zeros where `has` [N] is false; file: [N] numbers."""

    vectors: dict[str, np.ndarray]
    has: dict[str, np.ndarray]
    file: np.ndarray

    def of(self, files: np.ndarray) -> Windows:
        """The windows of these files alone."""
        return self.rows(np.isin(self.file, files))

    def rows(self, rows: np.ndarray) -> Windows:
        """These windows alone ([N] bool or numbers)."""
        return Windows(
            {name: values[rows] for name, values in self.vectors.items()},
            {name: values[rows] for name, values in self.has.items()},
            self.file[rows],
        )


def pooled_windows(
    model: AVModel,
    model_name: str,
    paths: Sequence[Path],
    modalities: Sequence[str],
    table: Path,
    *,
    window_s: float,
    hop_s: float,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[Windows, dict[int, str]]:
    """What the towers' `pool` stages give for the files, and the causes by the number of each file that gives nothing.

    The table is kept: the same call again, after an interruption too, decodes only what is missing. overwrite: replace
    one that is of other files or settings.
    """
    options = options_for(
        model,
        modalities=modalities,
        layers=[f"{modality}.pool" for modality in modalities],
        window_s=window_s,
        hop_s=hop_s,
    )
    there = [path for path in paths if path.is_file()]
    if not there:
        raise UsageError(f"{paths[0]}: no such file, nor is any other of the {len(paths)}; is --root right?")
    table.parent.mkdir(parents=True, exist_ok=True)
    units = [FileUnit(path) for path in dict.fromkeys(there)]
    how: dict[str, Any] = {"model_name": model_name, "listener": _Counter(advance)}
    try:
        report = embed_to_file(model, units, table, options, **how)
    except UsageError:
        if not overwrite:
            raise
        report = embed_to_file(model, units, table, options, overwrite=True, **how)
    causes = {failed["path"]: f"{failed['detail']} ({failed['reason']})" for failed in report.failed}
    if not report.rows:
        raise UsageError(f"none of the {len(there)} files could be read; the first: {next(iter(causes.items()), '')}")
    names = [printable(path) for path in paths]
    number = {name: place for place, name in enumerate(names)}
    with np.load(table, allow_pickle=False) as columns:
        file = np.array([number[str(name)] for name in columns["path"]])
        windows = Windows(
            {modality: columns[f"{modality}.pool"] for modality in modalities},
            {modality: columns[f"has_{modality}"] for modality in modalities},
            file,
        )
    seen = set(file.tolist())
    failed = {
        place: causes.get(name, "gave no window") if path.is_file() else "no such file"
        for place, (name, path) in enumerate(zip(names, paths, strict=True))
        if place not in seen
    }
    return windows, failed


class _Counter(Listener):
    def __init__(self, advance: Callable[[int], None]):
        self.advance = advance

    def failed(self, error: MediaError) -> None:
        """Named in the report."""

    def done(self, items: int) -> None:
        self.advance(items)
