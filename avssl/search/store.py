"""An index on disk: a folder with a table of rows, a graph of vectors a modality, and `index.json`, which names them.

    INDEX/index.json           format, version, model and its digest, windows, files with their state, names of the rest
    INDEX/rows-DIGEST.parquet  a table of avssl-embed (docs/embed.md), sorted by path and time
    INDEX/video-DIGEST.usearch the vectors of the rows that have pictures, keyed by row number; audio-… likewise

`index.json` is replaced last, in one step, and until then the files that the old one names stay: a reader sees the
index before a change or after it, never between.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avssl import __version__
from avssl.embedding.table import META
from avssl.errors import AvsslError, UsageError
from avssl.files import read_json, write_atomic, write_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT, VERSION = "avssl-search", 1
INDEX = "index.json"
KINDS = ("video", "audio")
CURE = "pip install 'avssl[search]'"


@dataclass(frozen=True)
class SearchIndex:
    """An index that was read. facts: index.json. graphs: by modality, vectors keyed by row of `rows`."""

    folder: Path
    facts: dict[str, Any]
    rows: pa.Table
    graphs: dict[str, Any]

    def __len__(self) -> int:
        return self.rows.num_rows


def exists(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """index.json. Raises UsageError where there is none, AvsslError if it cannot be used."""
    path = folder / INDEX
    try:
        facts = read_json(path)
    except FileNotFoundError:
        raise UsageError(f"{folder}: holds no index; make one with avssl-search index FOLDER -o {folder}") from None
    except (OSError, ValueError) as error:
        raise AvsslError(f"{path}: cannot be read ({error}); make the index anew with --overwrite") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise AvsslError(f'{path}: key "format" is not "{FORMAT}"; name a folder that avssl-search wrote')
    if facts.get("version") != VERSION:
        raise AvsslError(
            f'{path}: key "version" is {facts.get("version")!r}, this avssl reads {VERSION}; make the index anew with'
            " --overwrite, or update avssl"
        )
    return facts


def read_rows(folder: Path, facts: dict[str, Any]) -> pa.Table:
    """The rows with all their columns. Raises AvsslError naming the file if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _whole(folder / facts["rows_file"])
    try:
        rows = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise AvsslError(f"{path}: cannot be read ({error}); make the index anew with --overwrite") from None
    if rows.num_rows != facts["rows"]:
        raise AvsslError(f"{path}: has {rows.num_rows} rows instead of {facts['rows']}; make the index anew")
    return rows


def read_index(folder: Path) -> SearchIndex:
    """The index in `folder`. Raises UsageError where there is none, AvsslError for what is damaged."""
    facts = read_facts(folder)
    library = usearch()
    graphs = {}
    for kind, graph in facts["vectors"].items():
        path = _whole(folder / graph["file"])  # the library trusts what it reads: damage would crash it
        graphs[kind] = library.Index.restore(str(path), view=True)
        if graphs[kind] is None or len(graphs[kind]) != graph["rows"]:
            raise AvsslError(f"{path}: is not what {INDEX} says; make the index anew with --overwrite")
    return SearchIndex(folder, facts, read_rows(folder, facts), graphs)


def write_index(folder: Path, rows: pa.Table, meta: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Write the index of `rows`, a table of avssl-embed with the metadata `meta`; returns index.json.

    facts: further entries of index.json.
    """
    import pyarrow.parquet as pq

    library = usearch()
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows.replace_schema_metadata({META: json.dumps(meta, ensure_ascii=False, sort_keys=True)})
    graphs = {kind: _graph(library, rows, kind) for kind in KINDS if kind in rows.column_names}
    table = io.BytesIO()
    pq.write_table(rows, table, compression="zstd")
    name = _write(folder, "rows", "parquet", table.getvalue())
    vectors = {}
    for kind, graph in graphs.items():
        file = _write(folder, kind, "usearch", bytes(graph.save()))
        vectors[kind] = {"file": file, "rows": len(graph), "dim": graph.ndim}
    written = {
        "format": FORMAT,
        "version": VERSION,
        "created_with": __version__,
        "rows": rows.num_rows,
        "rows_file": name,
        "vectors": vectors,
        **facts,
    }
    write_json(folder / INDEX, written)
    for old in [*folder.glob("rows-*.parquet"), *folder.glob("*-*.usearch")]:
        if old.name not in {name, *(graph["file"] for graph in vectors.values())}:
            old.unlink(missing_ok=True)
    return written


def vectors_of(rows: pa.Table, kind: str) -> np.ndarray:
    """The column `kind` as [N, D] float32; zeros where the stream is absent."""
    column = rows[kind].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def usearch() -> Any:
    """The library of the graphs. Raises UsageError that says what to install."""
    try:
        import usearch.index
    except ImportError:
        raise UsageError(f"avssl-search needs the package usearch; run {CURE}") from None
    return usearch.index


def _graph(library: Any, rows: pa.Table, kind: str) -> Any:
    """Unit vectors by row number. One thread, so that the same rows give the same bytes."""
    vectors = vectors_of(rows, kind)
    present = np.flatnonzero(rows[f"has_{kind}"].to_numpy())
    graph = library.Index(ndim=vectors.shape[1], metric="ip", dtype="f32")
    if len(present):
        graph.add(present.astype(np.uint64), vectors[present], threads=1)
    return graph


def _write(folder: Path, what: str, suffix: str, content: bytes) -> str:
    """A file that is named by what is in it; returns the name."""
    name = f"{what}-{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
    write_atomic(folder / name, lambda file: file.write(content))
    return name


def _whole(path: Path) -> Path:
    """The path of a file that holds what its name says. Raises AvsslError for another."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise AvsslError(f"{path}: cannot be read: {error.strerror}; make the index anew with --overwrite") from None
    if digest != path.stem.rpartition("-")[2]:
        raise AvsslError(f"{path}: is damaged; make the index anew with --overwrite")
    return path


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, so that an index can be asked from anywhere. Links are kept as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
