"""Make an index of files or of a table of avssl-embed, and bring it up to date: only what is new is decoded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avssl.embedding.parts import PartFolder
from avssl.embedding.run import FORMAT as TABLE_FORMAT
from avssl.embedding.run import Listener, embed_to_file, model_sha256, options_for
from avssl.embedding.sources import FileUnit, ShardUnit, find_units
from avssl.embedding.table import read_meta
from avssl.errors import UsageError
from avssl.models.folder import bundled_models
from avssl.search import store

if TYPE_CHECKING:
    import pyarrow as pa

    from avssl.models.av_model import AVModel
    from avssl.sandbox.decoder import Decoder

_COLUMNS = ("path", "start_s", "end_s", *store.KINDS, *(f"has_{kind}" for kind in store.KINDS))
_NEW = "new.parquet"  # what is embedded now; beside it, avssl-embed's parts let an interrupted run go on
_SETTINGS = ("model_sha256", "window_s", "hop_s")


@dataclass
class Change:
    """What an update did. dropped: files that are no longer there. failed: path, reason, detail."""

    index: str
    rows: int
    files: int
    embedded: int
    kept: int
    dropped: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Wish:
    """How to embed; None: as the index does, or by default in windows of 2 s, one a second."""

    window_s: float | None = None
    hop_s: float | None = None
    batch_size: int = 16


def update(
    folder: Path,
    inputs: Sequence[str | os.PathLike[str]],
    model: AVModel,
    model_name: str,
    wish: Wish = Wish(),
    *,
    overwrite: bool = False,
    listener: Listener | None = None,
    decoder: Decoder | None = None,
) -> Change:
    """Index media files and folders in `folder`, or bring the index there up to date.

    Files that it holds already are kept unless size or time have changed; those that are gone are dropped; those that
    cannot be read are left out and tried again next time. Nothing changes until all is written.

    Raises UsageError for inputs that are not there, hold shards, or an index made with another model or other windows
    (unless `overwrite`), or if no file could be embedded.
    """
    store.usearch()
    old = store.read_facts(folder) if store.exists(folder) and not overwrite else None
    options = options_for(
        model,
        window_s=wish.window_s or (old["window_s"] if old else 2.0),
        hop_s=wish.hop_s or (old["hop_s"] if old else 1.0),
        batch_size=wish.batch_size,
    )
    wanted = {"model_sha256": model_sha256(model), "window_s": options.window_s, "hop_s": options.hop_s}
    if old:
        _refuse_other(folder, old, wanted, model_name)
    states: dict[str, str] = old["files"] if old else {}
    units = _units([*(path for path in states if Path(path).is_file()), *inputs])
    now = {unit.name: unit.fingerprint() for unit in units}
    new = [unit for unit in units if states.get(unit.name) != now[unit.name]]
    kept = {name for name, state in now.items() if states.get(name) == state}
    dropped = sorted(set(states) - set(now))
    if old and not (new or dropped or old["failed"]):
        return Change(str(folder), old["rows"], len(kept), 0, len(kept))

    tables: list[pa.Table] = []
    meta: dict[str, Any] = {}
    failed: list[dict[str, str]] = []
    if old and kept:
        tables.append(_only(store.read_rows(folder, old), kept))
        meta = read_meta(folder / old["rows_file"])
    if new:
        part = folder / _NEW
        part.unlink(missing_ok=True)  # whole, but of a run that ended before it was taken in
        folder.mkdir(parents=True, exist_ok=True)
        report = embed_to_file(
            model, new, part, options, model_name=model_name, overwrite=overwrite, listener=listener, decoder=decoder
        )
        failed = report.failed
        if report.rows:
            tables.append(_read(part))
            meta = read_meta(part)
    if not tables:
        raise UsageError(f"{folder}: none of the {len(units)} files could be embedded, so no index was written")
    rows = _joined(tables)
    found = set(rows["path"].to_pylist())
    files = {name: state for name, state in now.items() if name in found}
    meta = {key: value for key, value in meta.items() if key != "inputs_sha256"} | {
        "rows": rows.num_rows,
        "failed": failed,
    }
    facts = {"source": "files", "model": _lasting(model_name), **wanted, "files": files, "failed": failed}
    store.write_index(folder, rows, meta, facts)
    (folder / _NEW).unlink(missing_ok=True)
    PartFolder(folder / _NEW).remove()
    return Change(str(folder), rows.num_rows, len(files), len(found - kept), len(kept), dropped, failed)


def from_table(folder: Path, table: Path, *, overwrite: bool = False) -> Change:
    """Index the rows of a table that avssl-embed wrote; no file is decoded.

    Raises UsageError for another file, for rows of viewpoints, and where an index is in the way.
    """
    store.usearch()
    if store.exists(folder) and not overwrite:
        raise UsageError(f"{folder}: holds an index already; name another folder or add --overwrite")
    meta = read_meta(table)
    if meta.get("format") != TABLE_FORMAT:
        raise UsageError(f"{table}: is not a table of avssl-embed; name one, or media files or folders")
    if meta.get("spatial"):
        raise UsageError(f"{table}: its rows are viewpoints of 360° video, which cannot be searched; embed it flat")
    rows = _joined([_read(table)])
    names = rows["path"].to_pylist()
    paths = {name: str(store.absolute(name)) for name in dict.fromkeys(names)}
    rows = _with_paths(rows, [paths[name] for name in names])
    facts = {
        "source": str(store.absolute(table)),
        "model": _lasting(meta["model"]),
        **{key: meta[key] for key in _SETTINGS},
        "files": {},
        "failed": meta.get("failed", []),
    }
    store.write_index(folder, rows, meta, facts)
    return Change(str(folder), rows.num_rows, len(paths), 0, len(paths))


def _lasting(model: str) -> str:
    """The model's name such that it is found from any folder."""
    return str(store.absolute(model)) if Path(model).is_dir() and model not in bundled_models() else model


def _units(inputs: Sequence[str | os.PathLike[str]]) -> list[FileUnit]:
    """The files of `inputs`, each by its path from the root."""
    units = []
    for unit in find_units([store.absolute(path) for path in inputs]):
        if isinstance(unit, ShardUnit):
            raise UsageError(
                f"{unit.folder}: is a shard set; index the files that it was packed from, or embed it with avssl-embed"
                f" and name the table"
            )
        assert isinstance(unit, FileUnit)
        units.append(unit)
    return units


def _refuse_other(folder: Path, old: dict[str, Any], wanted: dict[str, Any], model_name: str) -> None:
    if old["source"] != "files":
        raise UsageError(f"{folder}: was made of the table {old['source']}; name another folder or add --overwrite")
    if old["model_sha256"] != wanted["model_sha256"]:
        raise UsageError(
            f"{folder}: was made with the model {old['model']}, and {model_name} is another one (or has changed since);"
            f" name that one with --model, or add --overwrite to make the index anew"
        )
    for key in ("window_s", "hop_s"):
        if old[key] != wanted[key]:
            option = key.removesuffix("_s")
            raise UsageError(
                f"{folder}: was made with --{option} {old[key]:g}, not {wanted[key]:g}; leave --{option} away, or add"
                " --overwrite to make the index anew"
            )


def _read(table: Path) -> pa.Table:
    """The columns of a table of avssl-embed that an index holds."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if table.suffix == ".parquet":
        had = [name for name in _COLUMNS if name in pq.read_schema(table).names]
        return pq.read_table(table, columns=had)
    columns = {}
    with np.load(table, allow_pickle=False) as arrays:
        for name in _COLUMNS:
            if name not in arrays.files:
                continue
            values = arrays[name]
            if values.ndim == 2:
                flat = pa.array(values.reshape(-1))
                columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            else:
                columns[name] = pa.array(values.tolist() if values.dtype.kind == "U" else values)
    return pa.table(columns)


def _only(rows: pa.Table, paths: set[str]) -> pa.Table:
    import pyarrow as pa

    return rows.filter(pa.array([path in paths for path in rows["path"].to_pylist()], pa.bool_()))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One table, sorted by path and time, so that the same rows give the same index however it came about."""
    import pyarrow as pa

    plain = [table.replace_schema_metadata(None).cast(_plain_schema(table)) for table in tables]
    return pa.concat_tables(plain).sort_by([("path", "ascending"), ("start_s", "ascending")]).combine_chunks()


def _plain_schema(table: pa.Table) -> pa.Schema:
    import pyarrow as pa

    fields = []
    for field_ in table.schema:
        kind = field_.type
        if pa.types.is_fixed_size_list(kind):
            kind = pa.list_(pa.float32(), kind.list_size)
        fields.append(pa.field(field_.name, kind))
    return pa.schema(fields)


def _with_paths(rows: pa.Table, paths: list[str]) -> pa.Table:
    import pyarrow as pa

    column = pa.array(paths, pa.string())
    return rows.set_column(rows.column_names.index("path"), "path", column)
