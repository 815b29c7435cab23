"""Rows as Arrow files, and Arrow files joined to one `.npz` or `.parquet`: flat memory, the same bytes each time."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from avssl.errors import UsageError
from avssl.files import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

    from avssl.embedding.stream import Row

META = "meta"  # the array of an .npz and the key of a .parquet's metadata that hold the JSON text

_ROWS_AT_ONCE = 256


def check_output(output: str | os.PathLike[str]) -> Path:
    """The path of a table to write. Raises `UsageError` if its name says no known format."""
    path = Path(output)
    if path.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{path}: the output's name must end in .npz or .parquet")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file")
    return path


def table_schema(vectors: Mapping[str, int], *, shards: bool, spatial: bool = False) -> pa.Schema:
    """The columns of a table. `vectors` maps the vector columns to their length, `has_KIND` follows each `KIND`.

    Tables of shard sets also have `row`, `id` and `label`, those of viewpoints `view` and its direction.
    """
    import pyarrow as pa

    fields = [("path", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    if shards:
        fields += [("row", pa.int64()), ("id", pa.string()), ("label", pa.string())]
    if spatial:
        fields += [("view", pa.int64())]
        fields += [(name, pa.float64()) for name in ("azimuth_deg", "elevation_deg", "fov_deg")]
    for name, length in vectors.items():
        fields.append((name, pa.list_(pa.float32(), length)))
        if "." not in name:
            fields.append((f"has_{name}", pa.bool_()))
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in fields])


class RowWriter:
    """Appends rows to an Arrow file; a vector that a row lacks is written as zeros."""

    def __init__(self, file: IO[bytes], schema: pa.Schema):
        import pyarrow as pa

        self.schema, self.rows = schema, 0
        self._writer = pa.ipc.new_file(file, schema)
        # Rows wait in arrays made once: hundreds of small ones, each kept between large ones that come and go, would
        # scatter the memory that the decoders free.
        self._vectors = {
            field.name: np.zeros((_ROWS_AT_ONCE, field.type.list_size), np.float32)
            for field in schema
            if pa.types.is_fixed_size_list(field.type)
        }
        self._values: dict[str, list[Any]] = {name: [] for name in schema.names if name not in self._vectors}

    def add(self, row: Row) -> None:
        place = self.rows % _ROWS_AT_ONCE
        for name, vectors in self._vectors.items():
            vectors[place] = row.get(name, 0)
        for name, values in self._values.items():
            values.append(row[name])
        self.rows += 1
        if place + 1 == _ROWS_AT_ONCE:
            self._write(_ROWS_AT_ONCE)

    def close(self) -> None:
        if waiting := self.rows % _ROWS_AT_ONCE:
            self._write(waiting)
        self._writer.close()

    def _write(self, count: int) -> None:
        import pyarrow as pa

        columns = []
        for field in self.schema:
            if field.name in self._vectors:
                values = pa.array(self._vectors[field.name][:count].reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(values, type=field.type))
            else:
                columns.append(pa.array(self._values[field.name], field.type))
                self._values[field.name].clear()
        self._writer.write_batch(pa.record_batch(columns, schema=self.schema))


def batches(parts: Sequence[Path], columns: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of Arrow files, a few at a time; `columns` are the numbers of those to read, by default all."""
    import pyarrow as pa

    wanted = pa.ipc.IpcReadOptions(included_fields=columns)
    for part in parts:
        with pa.OSFile(str(part)) as file:
            reader = pa.ipc.open_file(file, options=wanted)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


def join(path: Path, parts: Sequence[Path], schema: pa.Schema, meta: Mapping[str, Any]) -> None:
    """Write the rows of Arrow files, one after another, and `meta` to `path`, atomically."""
    writer = _write_npz if path.suffix == ".npz" else _write_parquet
    write_atomic(path, lambda file: writer(file, parts, schema, meta))


def _write_parquet(file: IO[bytes], parts: Sequence[Path], schema: pa.Schema, meta: Mapping[str, Any]) -> None:
    """Join `parts` to one Parquet file; vectors are fixed-size lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Vectors have hardly any value twice, so a dictionary would only cost time.
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    schema = schema.with_metadata({META: _json(meta)})
    with pq.ParquetWriter(file, schema, use_dictionary=texts, compression="zstd") as writer:
        for batch in batches(parts):
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def _write_npz(file: IO[bytes], parts: Sequence[Path], schema: pa.Schema, meta: Mapping[str, Any]) -> None:
    """Join `parts` to one .npz, an array a column; texts have a fixed width, so no pickle is needed to load it."""
    rows = sum(batch.num_rows for batch in batches(parts, [0]))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, field in enumerate(schema):
            kind = _numpy_type(field, number, parts)
            with _open_array(archive, field.name, kind, rows) as array:
                for batch in batches(parts, [number]):
                    array.write(_numpy(batch.column(0)).astype(kind.base).tobytes())
        text = np.array(_json(meta))
        with archive.open(_zip_entry(META), "w") as array:
            np.lib.format.write_array(array, text, allow_pickle=False)


def _open_array(archive: zipfile.ZipFile, name: str, kind: np.dtype, rows: int) -> IO[bytes]:
    """Start the array [rows, ...] of `kind`; its bytes are to follow."""
    array = archive.open(_zip_entry(name), "w", force_zip64=True)
    header = {
        "descr": np.lib.format.dtype_to_descr(kind.base),
        "fortran_order": False,
        "shape": (rows, *kind.shape),
    }
    np.lib.format.write_array_header_1_0(array, header)
    return array


def _zip_entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))  # no clock: equal rows, equal bytes


def _numpy_type(field: pa.Field, number: int, parts: Sequence[Path]) -> np.dtype:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(field.type):
        return np.dtype((np.float32, (field.type.list_size,)))
    if pa.types.is_string(field.type):
        width = max(
            (len(text) for batch in batches(parts, [number]) for text in batch.column(0).to_pylist()), default=0
        )
        return np.dtype(f"<U{max(width, 1)}")
    return np.dtype(field.type.to_pandas_dtype())


def _numpy(column: pa.Array) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False)
    return column.to_numpy(zero_copy_only=False)


def _json(meta: Mapping[str, Any]) -> str:
    return json.dumps(meta, ensure_ascii=False, allow_nan=False, sort_keys=True)


def read_meta(path: Path) -> dict[str, Any]:
    """The settings that an output of `avssl-embed` was made with; empty for a file that is something else."""
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return json.loads(str(arrays[META]))
        import pyarrow.parquet as pq

        return json.loads((pq.read_schema(path).metadata or {})[META.encode()])
    except (OSError, KeyError, ValueError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error):
        return {}
