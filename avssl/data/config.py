"""Settings of the way from shards to batches. Plain dataclasses: no torch, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError
from avssl.shards.options import CacheConfig
from avssl.spatial.config import TurnConfig, ViewConfig

_HEARD = {"ambisonics": 4, "stereo": 2, "mono": 1}  # channels


@dataclass
class VideoSpec:
    """One video clip of a sample: `frames` pictures, `fps` of them a second."""

    frames: int = 8
    """Frames a clip (T)."""
    fps: float = 16.0
    """Frames a second of the clip; the source may have another rate, frames are picked by time."""
    short_side_px: int | None = None
    """Resize the short side while decoding; null keeps the stored size (right for packed shards)."""
    max_aspect: float = 2.0
    """Frames longer than this ratio are centre-cropped to it, so one panorama does not widen a whole batch. Those that
    the shards declare equirectangular stay whole."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.fps <= 0:
            raise ConfigError(f"video.frames ({self.frames}) and video.fps ({self.fps}) must be positive")
        if self.max_aspect < 1:
            raise ConfigError(f"video.max_aspect is {self.max_aspect}, but it is long side / short side: at least 1")

    @property
    def duration_s(self) -> float:
        return self.frames / self.fps


@dataclass
class AudioSpec:
    """One audio window of a sample."""

    rate_hz: int = 24000
    """Sampling rate; must be the one that the shards were built with (`avssl-shards build --audio-rate-hz`)."""
    duration_s: float = 2.0
    """Length of the window; a shorter sound is padded with zeros at its end."""
    channels: int = 1
    """1 mixes down by the mean of the channels, of ambisonics it takes the omnidirectional one; any other number must
    be what the shards hold, or what `data.hearing` gives."""
    optional: bool = False
    """Keep rows without sound: their audio is zeros and `audio_mask` is false. Otherwise they are left out."""

    def __post_init__(self) -> None:
        if self.rate_hz < 1 or self.duration_s <= 0 or self.channels < 1:
            raise ConfigError("audio.rate_hz, audio.duration_s and audio.channels must be positive")

    @property
    def samples(self) -> int:
        return round(self.rate_hz * self.duration_s)


@dataclass
class AugmentConfig:
    """Ranges of the random changes (defaults: the AVID pretraining recipe). All are drawn once a clip."""

    crop_area: tuple[float, float] = (0.08, 1.0)
    """Area of the random box as a share of the frame."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of the box, drawn uniformly in its logarithm."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.4
    """Factor uniform in [max(0, 1 - value), 1 + value]; contrast and saturation alike."""
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.2
    """Shift uniform in [-value, value] of the full colour circle, at most 0.5."""
    gain: tuple[float, float] = (0.9, 1.1)
    """Factor on the audio samples."""
    speed: tuple[float, float] = (1.0, 1.0)
    """How much faster than recorded the sound is played, higher and shorter alike; drawn uniformly in its logarithm.
    Only of sound without pictures, which would no longer fit."""

    def __post_init__(self) -> None:
        for name in ("crop_area", "crop_aspect", "gain", "speed"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"augment.{name} is [{low}, {high}], but needs 0 < first <= second")
        if self.crop_area[1] > 1 or not 0 <= self.flip <= 1 or not 0 <= self.hue <= 0.5:
            raise ConfigError("augment.crop_area and augment.flip end at 1, augment.hue at 0.5")
        if min(self.brightness, self.contrast, self.saturation) < 0:
            raise ConfigError("augment.brightness, augment.contrast and augment.saturation must not be negative")


@dataclass
class AnchorConfig:
    """Segments of weakly labelled clips where their class is, found once by a tagger and kept beside the shards."""

    tagger: str
    """Model folder of a tagger that decides by frame and knows the model's classes, or YAMNet as a file `.onnx`."""
    ties: Literal["centre", "first"] = "centre"
    """Among equally likely places: `centre`, a short sound then lies in the middle of its segment; `first`, as the
    published code does: it lies at the end."""
    clip_s: float = 10.0
    """How much of a clip the tagger hears, around its middle; a shorter one is padded with zeros."""


@dataclass
class DataConfig:
    """What a `Loader` reads and how. `video: null` or `audio: null` leaves the modality out."""

    shards: list[str] = field(default_factory=list)
    """Folders written by `avssl-shards build`: paths, or addresses (http://, https://, s3://, …). Several addresses of
    one folder with blanks between them are mirrors: where one fails, the next goes on."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Remote shards on the local disk."""
    reader: Literal["index", "webdataset"] = "index"
    """`index`: random access by offset; remote shards must fit into the cache. `webdataset`: reads tars from front to
    back, one after the other."""
    video: VideoSpec | None = field(default_factory=VideoSpec)
    audio: AudioSpec | None = field(default_factory=AudioSpec)
    clips: int = 1
    """Clips and audio windows a sample (K)."""
    views: ViewConfig | None = None
    """Of 360° video: random flat views of each clip, and what is heard from there, instead of random crops. The shards
    must declare ambisonics and projection."""
    hearing: Literal["ambisonics", "stereo", "mono"] = "ambisonics"
    """What a view hears: the sound scene turned to it (4 channels), its left and right (2), its front (1); used with
    `views`."""
    turn: TurnConfig | None = None
    """Turn the sound scene of some samples against the picture, as `turned` of the batch tells; used with `views`."""
    sampling: Literal["random", "even"] = "random"
    """`random`: moments drawn anew each time; `even`: evenly spaced over the sample, for evaluation."""
    offset_s: float = 0.5
    """How far the shorter window may stick out of the longer one at either end (0 at test)."""
    augment: AugmentConfig | None = field(default_factory=AugmentConfig)
    """null: no augmentation; the device then resizes and crops the centre."""
    pixels: Literal["rgb24", "yuv420p"] = "rgb24"
    """What the workers hand over. `yuv420p` is half the bytes, its colour is converted on the device."""
    batch_size: int = 64
    """Samples a step over all ranks together."""
    draws_per_row: int = 1
    """How often each row comes inside one epoch before the order is drawn anew: an epoch is that many passes. With
    `sample_by`, how often what is named there comes."""
    sample_by: str = "row"
    """What comes equally often: each `row`; each `source` file, of which every time another row is drawn; each `class`
    of `labels`, whose rows come in turn; or each value of this column of the list that the shards were built from."""
    labels: str | None = None
    """Where the shards say which classes a row holds: `label`, or a column of the list that they were built from (a
    name, or a list of names). Batches then have `target` and `drawn_class`; rows without any class of the model are
    left out."""
    anchors: AnchorConfig | None = None
    """Of labelled sound: hear each row where the class that it was drawn for is. null: at a random moment."""
    shuffle: bool = True
    replacement: bool = False
    """Draw each sample from all rows, whatever came before: no row is sure to come once a pass, and the memory banks'
    rows are equally fresh all along it (without, those still to come are the only stale ones)."""
    seed: int = 0
    workers: int = 2
    """Decoding processes a rank; 0 decodes in the main process. The samples do not depend on it."""
    prefetch: int = 2
    """Batches that each worker prepares ahead."""
    stream_buffer: int = 512
    """Samples held in memory to shuffle what `reader: webdataset` reads in order."""
    max_skipped: float = 0.01
    """Share of samples that may be unusable before the run stops (the first ten never stop it)."""

    def __post_init__(self) -> None:
        if self.video is None and self.audio is None:
            raise ConfigError("data.video and data.audio are both null: nothing to load")
        for name in ("clips", "batch_size", "draws_per_row", "prefetch", "stream_buffer"):
            if getattr(self, name) < 1:
                raise ConfigError(f"data.{name} is {getattr(self, name)}, but must be at least 1")
        if self.views is not None and self.audio is not None and self.audio.channels != _HEARD[self.hearing]:
            raise ConfigError(
                f"data.audio.channels is {self.audio.channels}, but data.hearing {self.hearing!r} of data.views has"
                f" {_HEARD[self.hearing]}; set them to fit"
            )
        if self.turn is not None and self.views is None:
            raise ConfigError("data.turn turns what data.views hear, but data.views is null; set it, or turn to null")
        if self.sample_by != "row" and self.reader == "webdataset":
            raise ConfigError(
                f"data.sample_by {self.sample_by!r} needs random access, which data.reader 'webdataset' has not; set"
                " data.reader to index, or data.sample_by to row"
            )
        if self.anchors is not None and any("://" in folder for folder in self.shards):
            raise ConfigError("data.anchors are kept beside the shards; copy the remote folder of data.shards here")
        if self.replacement and (self.draws_per_row != 1 or not self.shuffle):
            raise ConfigError(
                "data.replacement draws at random for ever: set data.draws_per_row to 1 and data.shuffle to true"
            )
        if self.replacement and self.reader == "webdataset":
            raise ConfigError(
                "data.replacement needs random access, which data.reader 'webdataset' has not; set data.reader to"
                " index, or set data.replacement to false (data.draws_per_row 5 or 10 then lessens what it cures)"
            )
        if self.labels is None and (self.anchors is not None or self.sample_by == "class"):
            raise ConfigError(
                "data.anchors and data.sample_by 'class' need data.labels; set it, for example to 'label'"
            )
        if self.anchors is not None and (self.video is not None or self.audio is None or self.clips != 1):
            raise ConfigError("data.anchors are of sound alone, one a sample; set data.video to null, data.clips to 1")
        if self.augment is not None and self.augment.speed != (1.0, 1.0) and self.video is not None:
            raise ConfigError("data.augment.speed changes sound alone; set data.video to null, or speed to [1, 1]")
        if self.workers < 0 or self.offset_s < 0 or not 0 <= self.max_skipped <= 1:
            raise ConfigError(
                "data.workers and data.offset_s must not be negative, data.max_skipped is a share in [0, 1]"
            )
