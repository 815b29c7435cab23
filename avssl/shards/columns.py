"""The columns of a manifest, NumPy arrays over its rows, and the file beside it from which they are mapped."""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from avssl import files
from avssl.errors import ShardError
from avssl.shards import format as layout

_NAMES = {"U64": "<u8", "I64": "<i8", "F64": "<f8", "I32": "<i4", "BOOL": "|b1"}  # types of safetensors and NumPy
_MEMBERS = "members."
_LONGEST_HEADER = 1 << 20
_BLOCK = 1 << 24


@dataclass(eq=False)
class Columns:
    """What is known of each of N rows without reading its line.

    Pickling columns that are mapped sends the path, not the numbers.
    """

    ids: np.ndarray
    """[N] uint64."""
    lines: np.ndarray
    """[N + 1] int64: where each line of the manifest begins, and where the last one ends."""
    shard: np.ndarray
    """[N] int32: number of the tar."""
    duration_s: np.ndarray
    """[N] float64."""
    has_video: np.ndarray
    has_audio: np.ndarray
    label: np.ndarray
    """[N] int32: an index into the sorted labels of the folder, -1 without."""
    members: dict[str, np.ndarray]
    """By extension: offset and size in the tar [N, 2] int64, -1 where a row has none."""
    path: Path | None = None
    """The file that they are mapped from."""

    @classmethod
    def empty(cls, rows: int) -> Columns:
        return cls(
            ids=np.zeros(rows, np.uint64),
            lines=np.zeros(rows + 1, np.int64),
            shard=np.zeros(rows, np.int32),
            duration_s=np.zeros(rows, np.float64),
            has_video=np.zeros(rows, bool),
            has_audio=np.zeros(rows, bool),
            label=np.full(rows, -1, np.int32),
            members={},
        )

    @classmethod
    def of_manifest(cls, manifest: Path, *, rows: int, labels: list[str], sha256: str, name: str) -> Columns:
        """Read every line. `ShardError` that calls it `name` if it is not the one of this hash and number of rows."""
        try:
            possible = rows <= manifest.stat().st_size  # before memory is taken for them
            columns = cls.empty(rows if possible else 0)
            read = columns._fill(manifest, labels, sha256)
        except OSError as error:
            raise ShardError(f"{name}: cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError):
            read = -1
        if read != rows:
            raise ShardError(f"{name}: does not belong to {layout.INDEX}; restore it or build the shards again")
        return columns

    def _fill(self, manifest: Path, labels: list[str], sha256: str) -> int:
        """Returns the number of rows, or -1 if the manifest is another."""
        number_of = {label: number for number, label in enumerate(labels)}
        digest, end, row = hashlib.sha256(), 0, -1
        with manifest.open("rb") as file:
            for row, line in enumerate(file):
                digest.update(line)
                end += len(line)
                self.lines[row + 1] = end
                record = json.loads(line)
                self.ids[row] = int(record["id"], 16)
                self.shard[row] = record["shard"]
                self.duration_s[row] = record["end_s"] - record["start_s"]
                self.has_video[row] = record["video"] is not None
                self.has_audio[row] = record["audio"] is not None
                if record["label"] is not None:
                    self.label[row] = number_of[record["label"]]
                for name, place in record["members"].items():
                    if name not in self.members:
                        self.members[name] = np.full((len(self.ids), 2), -1, np.int64)
                    self.members[name][row] = place
        return row + 1 if digest.hexdigest() == sha256 else -1

    def write(self, path: Path, manifest_sha256: str) -> dict[str, Any]:
        """Write the file (see docs/shard-format.md); returns its bytes and sha256. The same columns give the same."""
        widest_first = sorted(self._arrays(), key=lambda item: (-item[1].itemsize, item[0]))  # so that all are aligned
        header: dict[str, Any] = {"__metadata__": {"manifest_sha256": manifest_sha256}}
        end = 0
        for name, array in widest_first:
            type_name = next(key for key, value in _NAMES.items() if np.dtype(value) == array.dtype)
            header[name] = {"dtype": type_name, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
            end += array.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        digest = hashlib.sha256()

        def write(file: IO[bytes]) -> None:
            head: Iterator[bytes | memoryview] = iter((struct.pack("<Q", len(text)), text))
            for block in itertools.chain(head, _blocks(array for _, array in widest_first)):
                digest.update(block)
                file.write(block)

        files.write_atomic(path, write)
        return {"bytes": 8 + len(text) + end, "sha256": digest.hexdigest()}

    @classmethod
    def map(cls, path: Path) -> Columns:
        """The columns of a file, mapped: nothing is read before it is looked at, and processes share the memory."""
        columns, _ = _mapped(path)
        return columns

    def _arrays(self) -> list[tuple[str, np.ndarray]]:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        own = [(name, value) for name, value in named if isinstance(value, np.ndarray)]
        return own + [(_MEMBERS + name, places) for name, places in self.members.items()]

    def __reduce__(self) -> tuple[Any, ...]:
        if self.path is not None:
            return Columns.map, (self.path,)
        return Columns, tuple(getattr(self, field.name) for field in fields(self))


def manifest_of(path: Path) -> str:
    """The sha256 of the manifest whose columns are in a file."""
    _, manifest_sha256 = _mapped(path)
    return manifest_sha256


def _mapped(path: Path) -> tuple[Columns, str]:
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (length,) = struct.unpack_from("<Q", data)
        if length > _LONGEST_HEADER:
            raise ValueError("its header is too long")
        header = json.loads(data[8 : 8 + length])
        manifest_sha256 = header.pop("__metadata__")["manifest_sha256"]
        arrays: dict[str, Any] = {"members": {}}
        for name, entry in header.items():
            first, stop = entry["data_offsets"]
            if not 0 <= first <= stop <= len(data) - 8 - length:
                raise ValueError(f"{name} ends after the file")
            dtype, shape = np.dtype(_NAMES[entry["dtype"]]), tuple(entry["shape"])
            array = np.frombuffer(data, dtype, (stop - first) // dtype.itemsize, 8 + length + first).reshape(shape)
            if name.startswith(_MEMBERS):
                arrays["members"][name.removeprefix(_MEMBERS)] = array
            else:
                arrays[name] = array
        columns = Columns(**arrays, path=path)
        rows = len(columns.ids)
        if any(len(array) != rows + (name == "lines") for name, array in columns._arrays()):
            raise ValueError("its columns are not of one length")
        return columns, manifest_sha256
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ShardError(
            f"{path}: cannot be used ({error}); delete it and run avssl-shards index {path.parent}"
        ) from error


def _blocks(arrays: Iterator[np.ndarray]) -> Iterator[memoryview]:
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for first in range(0, len(flat), _BLOCK):
            yield flat[first : first + _BLOCK]
