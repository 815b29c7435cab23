"""Where in each weakly labelled clip each of its classes is: a table beside the shards, mined once.

`avssl.separation.anchor_mining` writes it; here it is found and read. It is named after all that it depends on, so that
a table of other shards, another tagger or another length is never taken for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from avssl import files
from avssl.data.config import DataConfig
from avssl.data.labels import Labels
from avssl.errors import ConfigError, ShardError
from avssl.shards import ShardSet

_WEIGHTS = "model.safetensors"


class AnchorTable:
    """start_s of the segment by (row, class)."""

    def __init__(self, starts_s: Mapping[tuple[int, int], float]):
        self._starts_s = dict(starts_s)

    def __len__(self) -> int:
        return len(self._starts_s)

    def start_s(self, row: int, number: int) -> float | None:
        """Where the segment of class `number` begins in the row; None where nothing was mined (an unusable clip)."""
        return self._starts_s.get((row, number))

    def write(self, path: Path) -> None:
        keys = np.array(sorted(self._starts_s), np.int64).reshape(-1, 2)
        starts_s = np.array([self._starts_s[row, number] for row, number in keys.tolist()], np.float64)
        columns = {"row": keys[:, 0], "number": keys[:, 1], "start_s": starts_s}
        files.write_atomic(path, lambda file: np.savez_compressed(file, **columns))  # type: ignore[arg-type]

    @classmethod
    def read(cls, path: Path) -> AnchorTable:
        """Raises ShardError if the table is missing or damaged."""
        try:
            with np.load(path, allow_pickle=False) as columns:
                rows, numbers, starts_s = (columns[name].tolist() for name in ("row", "number", "start_s"))
        except FileNotFoundError:
            raise ShardError(f"{path}: no such table of anchors; avssl-train mines it when a run begins") from None
        except Exception as error:  # numpy's reader raises many kinds for damaged bytes
            raise ShardError(f"{path}: cannot be read ({error}); delete it, and it is mined again") from error
        return cls(dict(zip(zip(rows, numbers, strict=True), starts_s, strict=True)))


def anchor_path(config: DataConfig, shards: ShardSet, labels: Labels) -> Path:
    """Where the table for these settings is: in the first shard folder."""
    assert config.anchors and config.audio
    path = Path(config.anchors.tagger)
    weights = path if path.suffix == ".onnx" else path / _WEIGHTS
    try:
        with weights.open("rb") as file:
            tagger = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"data.anchors.tagger: {weights} cannot be read ({error.strerror}); name the folder of a tagger that"
            " decides by frame, made by avssl-train or avssl-convert, or YAMNet as a file .onnx"
        ) from error
    anchors, segment_s = config.anchors, config.audio.duration_s
    settings = (labels.column, anchors.clip_s, anchors.ties, segment_s)
    depends = (shards.manifest_sha256, labels.sha256, tagger, settings)
    return Path(config.shards[0]) / f"anchors-{hashlib.sha256(repr(depends).encode()).hexdigest()[:16]}.npz"
