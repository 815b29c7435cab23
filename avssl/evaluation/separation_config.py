"""What the protocols of separation ask for. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig

QueryOf = Literal["average", "class", "oracle"]


def _check_query(query: str, train: object, name: str) -> None:
    if query == "average" and train is None:
        raise ConfigError(f"protocol.{name}: missing; query 'average' is made of training sounds (or take 'class')")


@dataclass
class PairsConfig:
    """Two labelled sounds, mixed at equal energy; each is separated out of the mixture."""

    name: str
    data: DatasetConfig
    """Clips by class; of several labels the first counts. `csv` with a column `split` suits AudioSet and FSD50k."""
    query: QueryOf = "average"
    """`average`: the mean over training sounds of the class. `class`: its name. `oracle`: the target itself."""
    segment: Literal["first", "mined"] = "first"
    """Which part of a clip: its beginning, or where `miner` hears the class most."""
    miner: str | None = None
    """The model folder of a tagger of the kind `frame`."""
    segment_s: float = 2.0
    """Length of the sounds; shorter clips are repeated."""
    pairs: int = 100
    """Mixtures for each class."""
    train_sounds: int = 100
    """Of each class, for its query."""

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.train_sounds < 1 or not 0.1 <= self.segment_s <= 60:
            raise ConfigError("protocol: pairs and train_sounds must be at least 1, segment_s within 0.1 to 60")
        if (self.segment == "mined") != (self.miner is not None):
            raise ConfigError("protocol.miner: goes with segment 'mined'; name a tagger's model folder for that")


@dataclass
class StemsConfig:
    """Real mixtures with their stems: songs, whole or in chunks."""

    name: str
    root: str
    """The folder of the songs that are tested."""
    layout: Literal["musdb", "slakh", "csv"] = "musdb"
    """`musdb`: SONG/mixture.wav and SONG/STEM.wav, the stem is the class. `slakh`: TRACK/mix.flac, metadata.yaml and
    stems/, the plug-in is the class. `csv`: the file `list` with the columns mixture, source and class."""
    list: str | None = None
    """csv: of what is tested."""
    train_root: str | None = None
    """As `root`, for the queries of query `average`."""
    train_list: str | None = None
    """csv: as `list`, for the queries."""
    query: QueryOf = "average"
    """As in separation_pairs; `oracle` takes the stem itself."""
    train_sounds: int = 100
    """Of each class, for its query."""
    chunk_s: float | None = None
    """Null: whole songs. Otherwise chunks of this length in which the stem's peak is above `active_peak`."""
    active_peak: float = 0.1
    """Of full scale."""
    most_chunks: int = 100
    """Of each class."""
    fewest_chunks: int = 11
    """Classes with fewer are left out."""
    frame_s: float = 1.0
    """Frames of SDR-v4."""
    released_swap: bool = False
    """Exchange estimate and reference in SDR-v4, as the release of USS did; only to compare with its numbers."""

    mapss: str | None = None
    """For whole songs, also PS and PM of MAPSS: `log_spectra`, or the model folder of a tagger, tell sounds apart."""

    def __post_init__(self) -> None:
        if self.mapss and self.chunk_s is not None:
            raise ConfigError("protocol.mapss: is for whole songs, all of whose parts are heard; leave chunk_s away")
        if self.layout == "csv" and self.list is None:
            raise ConfigError("protocol.list: missing; layout 'csv' needs it")
        _check_query(self.query, self.train_root if self.layout != "csv" else self.train_list, "train_root")
        if min(self.train_sounds, self.most_chunks, self.fewest_chunks) < 1 or self.frame_s <= 0:
            raise ConfigError("protocol: train_sounds, most_chunks, fewest_chunks and frame_s must be positive")


@dataclass
class DenoiseConfig:
    """Noisy speech and the same speech without noise, in two folders under equal names (VoiceBank-DEMAND)."""

    name: str
    noisy: str
    """Folder of the mixtures."""
    clean: str
    """Folder of the references."""
    train_clean: str | None = None
    """Folder of clean training speech, for the query `average`."""
    query: QueryOf = "average"
    """As in separation_pairs; `class` asks for `class_name`."""
    class_name: str = "Speech"
    """For query `class`."""
    train_sounds: int = 11572
    """Files for the query."""
    rate_hz: int = 16000
    """At which SSNR and PESQ are computed."""

    def __post_init__(self) -> None:
        _check_query(self.query, self.train_clean, "train_clean")
