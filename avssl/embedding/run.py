"""Embed files, folders and shard sets into one table: resumable, bad files reported, the output whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from avssl import __version__
from avssl.embedding.parts import Part, PartFolder, refuse_other
from avssl.embedding.sources import Item, ShardUnit, Unit
from avssl.embedding.stream import EMBEDDING, Row, StreamOptions, embed_item, output_columns
from avssl.embedding.table import RowWriter, check_output, join, read_meta, table_schema
from avssl.errors import AvsslError, MediaError, UsageError
from avssl.files import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

    from avssl.models.av_model import AVModel
    from avssl.sandbox.decoder import Decoder

FORMAT, VERSION = "avssl-embeddings", 1


@dataclass
class EmbedReport:
    """What a run did. `rows` is 0 and no output is written if nothing could be embedded."""

    output: str
    rows: int = 0
    items: int = 0  # files, and clips of shard sets
    kept: int = 0  # of them, embedded by an earlier run
    failed: list[dict[str, str]] = field(default_factory=list)  # path, reason, detail
    inputs: list[dict[str, Any]] = field(
        default_factory=list
    )  # path, rows, status: done, kept, failed or partly failed
    already_complete: bool = False


class Listener:
    """Told how a run goes; override what you want to show."""

    def failed(self, error: MediaError) -> None:
        """A file or clip is left out."""

    def at(self, row: Row) -> None:
        """A row was made."""

    def done(self, items: int) -> None:
        """Items were embedded or failed."""


def options_for(
    model: AVModel, *, modalities: Sequence[str] | None = None, layers: Sequence[str] = (), **others: Any
) -> StreamOptions:
    """`StreamOptions` that fit the model: all its modalities by default; a layer is `video.NAME`, `audio.NAME` or just
    `NAME` for both. Raises `UsageError` for what the model lacks.
    """
    had = [kind for kind in ("video", "audio") if getattr(model.config, kind) is not None]
    for kind in modalities or ():
        if kind not in had:
            raise UsageError(f"this model has no {kind} tower; it embeds {' and '.join(had)}")
    kinds = [kind for kind in had if kind in (modalities or had)]
    valid = [f"{kind}.{name}" for kind in kinds for name in model.layers(kind) if name != EMBEDDING]
    wanted = []
    for layer in layers:
        matching = [name for name in valid if layer in (name, name.partition(".")[2])]
        if not matching:
            raise UsageError(f"the model has no layer {layer!r}; valid: {', '.join(valid)}")
        wanted += [name for name in matching if name not in wanted]
    return StreamOptions(modalities=tuple(kinds), layers=tuple(wanted), **others)


def embed_to_file(
    model: AVModel,
    units: Sequence[Unit],
    output: str | os.PathLike[str],
    options: StreamOptions,
    *,
    model_name: str = "",
    overwrite: bool = False,
    listener: Listener | None = None,
    decoder: Decoder | None = None,
) -> EmbedReport:
    """Embed `units` (see `find_units`) into the table `output` (.npz or .parquet).

    Files that fail are reported and left out. What is finished is kept in `OUTPUT.parts` until the output is
    written (and after it, if something failed), so calling this again makes only what is missing. An output or parts
    made with other settings or from other inputs raise `UsageError` unless `overwrite`. Files are decoded by `decoder`,
    in its own confined process, if there is one.
    """
    path, listener = check_output(output), listener or Listener()
    shards = any(isinstance(unit, ShardUnit) for unit in units)
    columns = output_columns(model, options)
    settings = _settings(model, options, shards)
    report = EmbedReport(str(path), items=sum(unit.items for unit in units))

    parts = PartFolder(path)
    if overwrite:
        parts.remove()
    elif path.exists() and not parts.exists():
        return _already_complete(path, settings, units, report)
    parts.open(settings)

    schema = table_schema(columns, shards=shards, spatial=options.spatial is not None)
    files = []
    for unit in units:
        part = parts.finished(unit)
        if part is None:
            part = _embed_unit(model, unit, options, parts, schema, listener, decoder)
            status = ("partly failed" if part.rows else "failed") if part.failed else "done"
        else:
            report.kept += unit.items
            listener.done(unit.items)
            status = "kept"
        report.inputs.append({"path": unit.name, "rows": part.rows, "status": status})
        if part.rows:
            files.append(parts.path(unit))
        report.failed += part.failed
        report.rows += part.rows

    if report.rows == 0:
        parts.remove()
        return report
    meta = settings | _provenance(model, model_name, units) | {"rows": report.rows, "failed": report.failed}
    join(path, files, schema, meta)
    if report.failed:
        parts.close()
    else:
        parts.remove()
    return report


def _embed_unit(
    model: AVModel, unit: Unit, options: StreamOptions, parts: PartFolder, schema: pa.Schema, listener: Listener,
    decoder: Decoder | None,
) -> Part:  # fmt: skip
    part = Part(unit.name, unit.fingerprint())

    def fail(error: MediaError) -> None:
        part.failed.append({"path": error.path, "reason": error.reason, "detail": error.detail})
        listener.failed(error)

    def write(file: IO[bytes]) -> None:
        writer = RowWriter(file, schema)
        for item in unit.load():
            try:
                rows = _rows(model, item, options, decoder)
                # A clip that fails leaves no rows behind, so they wait for its end. A file may be too long for that:
                # its rows are written as they come, and if it fails, its whole part is given up.
                for row in list(rows) if unit.items > 1 else rows:
                    writer.add(row)
                    listener.at(row)
            except MediaError as error:
                if unit.items == 1:
                    raise
                fail(error)
            listener.done(1)
        writer.close()
        part.rows = writer.rows

    try:
        write_atomic(parts.path(unit), write)
    except MediaError as error:
        fail(error)
        listener.done(1)
    parts.finish(unit, part)
    return part


def _rows(model: AVModel, item: Item | MediaError, options: StreamOptions, decoder: Decoder | None) -> Iterator[Row]:
    """`embed_item` with the errors of this machine as errors that a user understands."""
    if isinstance(item, MediaError):
        raise item
    try:
        yield from embed_item(model, item, options, decoder)
    except OSError as error:
        raise MediaError(item.path, "unreadable", f"cannot be read: {error.strerror or error}") from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise AvsslError(f"{item.path}: out of memory with --batch-size {options.batch_size}; lower it") from error


def _settings(model: AVModel, options: StreamOptions, shards: bool) -> dict[str, Any]:
    """What decides the rows: two tables can only be parts of one if these are equal."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "model_sha256": model_sha256(model),
        "window_s": options.window_s,
        "hop_s": options.hop_s,
        "modality": ",".join(options.modalities),
        "layers": ",".join(options.layers),
        "pool": options.pool,
        "shards": shards,
        "spatial": asdict(options.spatial) if options.spatial else None,
    }


def _provenance(model: AVModel, model_name: str, units: Sequence[Unit]) -> dict[str, Any]:
    config = model.config.to_dict()
    return {
        "avssl": __version__,
        "model": model_name,
        "config_sha256": _json_sha256(config),
        "preprocessing": {key: config[key] for key in ("video_input", "audio_input")},
        "inputs_sha256": _inputs_sha256(units),
    }


def model_sha256(model: AVModel) -> str:
    """Names the numbers that the model computes with: its configuration and its weights."""
    digest = hashlib.sha256(_json_sha256(model.config.to_dict()).encode())
    for key, tensor in sorted(model.network.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _json_sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _inputs_sha256(units: Sequence[Unit]) -> str:
    digest = hashlib.sha256()
    for unit in units:
        digest.update(f"{unit.name}\0{unit.fingerprint()}\n".encode())
    return digest.hexdigest()


def _already_complete(path: Path, settings: dict[str, Any], units: Sequence[Unit], report: EmbedReport) -> EmbedReport:
    meta = read_meta(path)
    if meta.get("format") != FORMAT:
        raise UsageError(f"{path} exists and is not an output of avssl-embed; name another output or add --overwrite")
    refuse_other(meta, settings, f"{path} exists, made")
    if meta["inputs_sha256"] != _inputs_sha256(units):
        raise UsageError(f"{path} exists, made from other files or older ones; add --overwrite to make it anew")
    report.rows, report.failed, report.kept = meta["rows"], meta["failed"], report.items
    report.already_complete = True
    return report
