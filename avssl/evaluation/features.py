"""Features by file: read from a table of `avssl-embed`, or embedded for an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import avssl
from avssl.embedding.run import Listener, embed_to_file, options_for
from avssl.embedding.sources import FileUnit
from avssl.errors import ConfigError, MediaError
from avssl.evaluation.datasets import LabelledItem
from avssl.evaluation.frozen_config import FrozenConfig
from avssl.evaluation.protocol import EvalConfig


class Features(NamedTuple):
    """rows: [N, D] float32, one a window. of: rows of each file that has any, by its resolved path."""

    rows: np.ndarray
    of: dict[Path, np.ndarray]


def embed(config: EvalConfig, items: Iterable[LabelledItem], out: Path, advance: Callable[[int], None]) -> Path:
    """Embed the files that exist into `out`/embeddings.npz; what is there already is kept."""
    if config.model is None:
        raise ConfigError("model: missing; name a model, or give protocol.embeddings a table of avssl-embed")
    protocol: FrozenConfig = config.protocol
    model = avssl.load(config.model, device=config.device)
    kind, _, layer = protocol.feature.partition(".")
    options = options_for(
        model,
        modalities=None if kind == "both" else [kind],
        layers=[protocol.feature] if layer else [],
        window_s=protocol.window_s,
        hop_s=protocol.hop_s,
    )
    out.mkdir(parents=True, exist_ok=True)
    table = out / "embeddings.npz"
    units = [FileUnit(path) for path in sorted({item.path for item in items}) if path.is_file()]
    report = embed_to_file(model, units, table, options, model_name=config.model, listener=_Counter(advance))
    if not report.rows and not report.already_complete:
        raise ConfigError(f"protocol.data.root: none of its {len(units)} files could be embedded")
    return table


def read(table: Path, feature: str, root: Path) -> Features:
    """The rows of a table that have `feature`. Paths in it are as `avssl-embed` was given them, or relative to `root`.

    Raises ConfigError if the table cannot be read or has no such column.
    """
    wanted = ["video", "audio"] if feature == "both" else [feature]
    columns = _columns(table)
    for name in wanted:
        if name not in columns or columns[name].ndim != 2:
            vectors = [key for key, value in columns.items() if value.ndim == 2]
            raise ConfigError(f"protocol.feature is {feature!r}, but {table} has the vectors {', '.join(vectors)}")
    has = np.logical_and.reduce([columns[f"has_{name.partition('.')[0]}"] for name in wanted])
    rows = np.concatenate([columns[name] for name in wanted], 1)[has]
    of: dict[Path, list[int]] = {}
    for number, name in enumerate(columns["path"][has]):
        path = Path(str(name))
        if not path.exists() and (root / path).exists():
            path = root / path
        of.setdefault(path.resolve(), []).append(number)
    return Features(rows, {path: np.array(numbers) for path, numbers in of.items()})


def _columns(table: Path) -> dict[str, np.ndarray]:
    try:
        if table.suffix == ".npz":
            with np.load(table, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if arrays[name].ndim}
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {}
        for name, column in zip((read := pq.read_table(table)).column_names, read.columns, strict=True):
            whole = column.combine_chunks()
            if pa.types.is_fixed_size_list(whole.type):
                columns[name] = whole.flatten().to_numpy().reshape(len(whole), -1)
            else:
                columns[name] = whole.to_numpy(zero_copy_only=False)
        return columns
    except (OSError, ValueError) as error:
        raise ConfigError(f"protocol.embeddings: {table} cannot be read ({error})") from None


class _Counter(Listener):
    def __init__(self, advance: Callable[[int], None]):
        self.advance = advance

    def failed(self, error: MediaError) -> None:
        """Found missing later, and named then."""

    def done(self, items: int) -> None:
        self.advance(items)
