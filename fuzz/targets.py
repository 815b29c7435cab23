"""The parsers that are this project's own, each with files to start from and what it may raise about bytes.

A target takes bytes and returns. Errors that tell a user what is wrong (`AvsslError`) are answers; all others are
defects.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avssl.errors import AvsslError


@dataclass(frozen=True)
class Target:
    """`run` parses bytes; `seeds` gives well-formed ones."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def _packed(data: bytes) -> None:
    from avssl.media.packed import packed_frames

    packed_frames(data, [0.0, 0.5], short_side_px=32, pixels="rgb24")


def _packed_seeds() -> list[bytes]:
    from avssl.synthetic import fixtures

    return [fixtures.clip("mp4-h264-fastdecode", duration_s=1.0, size_px=(32, 48))]


def _flac(data: bytes) -> None:
    from avssl.media.flac import decode_flac

    for start_s, duration_s in ((0.0, None), (0.3, 0.2)):
        _said(decode_flac, data, start_s, duration_s)


def _flac_seeds() -> list[bytes]:
    from avssl.media.flac import encode_flac

    draw = np.random.default_rng(0)
    return [encode_flac(draw.uniform(-0.5, 0.5, (channels, 4000)), 8000) for channels in (1, 4)]


def _spherical(data: bytes) -> None:
    from avssl.media import spherical

    _said(spherical.of_boxes, io.BytesIO(data), 0, 1)
    _said(spherical.refuse_channel_maps, io.BytesIO(data), "file")


def _spherical_seeds() -> list[bytes]:
    from avssl.synthetic import fixtures

    return [fixtures.clip("mp4-h264-aac", duration_s=0.5, size_px=(32, 48))]


def _sniff(data: bytes) -> None:
    """What is looked at before FFmpeg sees a file: first bytes, and whether its sizes reach beyond its end."""
    from avssl.media import guard

    file = io.BytesIO(data)
    container = _said(guard.sniff, file, "file")
    if container is not None:
        guard.ends_early(file, container, len(data))


def _sniff_seeds() -> list[bytes]:
    from avssl.synthetic import fixtures

    names = ("mp4-h264-aac", "mkv-h264-opus", "avi-mjpeg-pcm")
    return [fixtures.clip(name, duration_s=0.2, size_px=(32, 48))[:4000] for name in names]


def _yaml(data: bytes) -> None:
    from avssl import config
    from avssl.training.config import TrainConfig

    def read(path: Path) -> None:
        config.build(TrainConfig, config.read(path))

    with _as_file(data, "config.yaml") as path:
        _said(read, path)


def _yaml_seeds() -> list[bytes]:
    folder = Path(__file__).parents[1] / "configs"
    return [(folder / name).read_bytes() for name in ("tiny.yaml", "avid_cma_kinetics_debug.yaml")]


def _model_config(data: bytes) -> None:
    from avssl.models.folder import KINDS, model_kind, read_description

    def read(folder: Path) -> None:
        description = read_description(folder)
        if model_kind(description) in KINDS:
            KINDS[model_kind(description)].config.from_dict(description["model"])

    with _as_file(data, "config.json") as path:
        _said(read, path.parent)


def _model_config_seeds() -> list[bytes]:
    from avssl.models.folder import BUNDLED

    return [path.read_bytes() for path in sorted(BUNDLED.glob("*/config.json"))]


def _weights(data: bytes) -> None:
    from avssl.published.checkpoint import read_checkpoint

    for name in ("file.pth", "file.safetensors"):
        with _as_file(data, name) as path:
            _said(read_checkpoint, path)


def _weights_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    state = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.zeros(3, dtype=torch.int64)}
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"model": state, "epoch": 3}, new)
    torch.save({"model": state}, old, _use_new_zipfile_serialization=False)
    return [save(state), new.getvalue(), old.getvalue()]


def _table(data: bytes) -> None:
    from avssl.embedding.table import read_meta

    for name in ("table.npz", "table.parquet"):
        with _as_file(data, name) as path:
            _said(read_meta, path)


def _table_seeds() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    npz, parquet = io.BytesIO(), io.BytesIO()
    np.savez(npz, meta=np.array('{"rows": 2}'), video=np.zeros((2, 3), np.float32))
    pq.write_table(pa.table({"row": [1, 2]}).replace_schema_metadata({"meta": '{"rows": 2}'}), parquet)
    return [npz.getvalue(), parquet.getvalue()]


_SEPARATOR = b"\n--8<--\n"


def _shards(data: bytes) -> None:
    """A shard folder: index.json, manifest.jsonl, the tar, with a separator between. The index is made to name the
    manifest that is there, as somebody hostile would."""
    from avssl.shards import ShardSet
    from avssl.shards.verify import verify

    parts = [*data.split(_SEPARATOR, 2), b"", b""][:3]
    with _as_file(parts[0], "index.json") as path:
        folder = path.parent
        (folder / "manifest.jsonl").write_bytes(parts[1])
        (folder / "shard-000000.tar").write_bytes(parts[2])
        _make_index_agree(path, parts[1])
        list(verify(folder))

        def read() -> None:
            shards = ShardSet.open(folder)
            for row in range(min(len(shards), 8)):
                shards.record(row)
                for member in shards.members(row):
                    _said(shards.read, row, member)

        _said(read)


def _make_index_agree(path: Path, manifest: bytes) -> None:
    try:
        index = json.loads(path.read_bytes())
        index["manifest_sha256"] = hashlib.sha256(manifest).hexdigest()
        path.write_text(json.dumps(index))
    except (ValueError, TypeError, RecursionError):
        return


@contextmanager
def _written_shards() -> Iterator[Path]:
    """A folder of two samples."""
    from avssl.shards.options import BuildOptions
    from avssl.shards.sources import Entry, Listing
    from avssl.shards.transcode import Clip, sample_of
    from avssl.shards.write import Cursor, ShardWriter

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "shards"
        entries = [Entry(f"{number}.mp4", f"{number}.mp4", label="a") for number in range(2)]
        with ShardWriter(folder, Listing(entries, 0), BuildOptions(), None) as writer:
            for number, entry in enumerate(entries):
                sample = sample_of(entry, 0, 1000, None, {"rate_hz": 8000, "channels": 1, "samples": 8000})
                writer.add(Clip({"flac": b"not really sound" * 8}, sample), Cursor(number + 1))
            writer.finish()
        yield folder


def _shards_seeds() -> list[bytes]:
    with _written_shards() as folder:
        names = ("index.json", "manifest.jsonl", "shard-000000.tar")
        return [_SEPARATOR.join((folder / name).read_bytes() for name in names)]


def _columns(data: bytes) -> None:
    """The columns beside a manifest, which are mapped."""
    from avssl.shards.columns import Columns

    with _as_file(data, "columns.bin") as path:
        columns = _said(Columns.map, path)
        if columns is not None and len(columns.ids):
            columns.lines[-1], columns.shard[0], columns.label[0]
            for places in columns.members.values():
                tuple(places[0])


def _columns_seeds() -> list[bytes]:
    from avssl.shards import format as layout

    with _written_shards() as folder:
        return [(folder / layout.COLUMNS).read_bytes()]


def _list(data: bytes) -> None:
    """Lists of sources, as `avssl-shards build` takes them."""
    from avssl.shards.sources import list_sources

    for name in ("list.csv", "list.jsonl"):
        with _as_file(data, name) as path:
            _said(list_sources, path)


def _list_seeds() -> list[bytes]:
    csv = "path,start_s,end_s,label,ambisonics\na.mp4,0,2.5,dog,ambix\nb/c.mkv,1,,cat,none\n"
    rows = [{"path": "a.mp4", "start_s": 1, "label": "x", "meta": {"k": [1, 2]}}, {"path": "b.mkv", "end_s": 2.0}]
    return [csv.encode(), "\n".join(map(json.dumps, rows)).encode()]


def _answer(data: bytes) -> None:
    """What a confined process may send to its parent."""
    import socket

    from avssl.sandbox import wire
    from avssl.shards.answer import from_answer
    from avssl.shards.options import BuildOptions
    from avssl.shards.sources import Entry

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        theirs.send(data[: 1 << 16])
        theirs.close()
        try:
            head, parts = wire.receive(ours, most_bytes=1 << 20)
        except wire.WireError:
            return
        outcome = from_answer(head, parts, Entry("a.mp4", "a.mp4"), BuildOptions())
        json.dumps([outcome.clips, getattr(outcome.result, "sample", None)], allow_nan=False)


def _answer_seeds() -> list[bytes]:
    seeds = []
    for value, sizes in (
        ({"clips": 2, "rejected": ["corrupt", "text", 1.0]}, []),
        (
            {
                "clips": 1,
                "sample": {"start_s": 0, "end_s": 1, "video": None, "audio": {"rate_hz": 8}},
                "members": ["flac"],
            },
            [4],
        ),
    ):
        head = json.dumps({"value": value, "sizes": sizes}).encode()
        seeds.append(len(head).to_bytes(4, "big") + head + b"data"[: sum(sizes)])
    return seeds


TARGETS: dict[str, Target] = {
    "answer": Target(_answer, _answer_seeds),
    "columns": Target(_columns, _columns_seeds),
    "flac": Target(_flac, _flac_seeds),
    "list": Target(_list, _list_seeds),
    "model_config": Target(_model_config, _model_config_seeds),
    "packed": Target(_packed, _packed_seeds),
    "shards": Target(_shards, _shards_seeds),
    "sniff": Target(_sniff, _sniff_seeds),
    "spherical": Target(_spherical, _spherical_seeds),
    "table": Target(_table, _table_seeds),
    "weights": Target(_weights, _weights_seeds),
    "yaml": Target(_yaml, _yaml_seeds),
}


def _said(function, *arguments):
    """What the function returns, or None if it says what is wrong."""
    try:
        return function(*arguments)
    except AvsslError:
        return None


@contextmanager
def _as_file(data: bytes, name: str) -> Iterator[Path]:
    """A file of this content, alone in a folder."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None  # thousands of small files should not reach a disk
    folder = Path(tempfile.mkdtemp(dir=base))
    try:
        (folder / name).write_bytes(data)
        yield folder / name
    finally:
        shutil.rmtree(folder)
