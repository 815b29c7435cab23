"""Settings of the protocols on 360° video (docs/avsa-evaluation.md). No torch, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from avssl.errors import ConfigError
from avssl.spatial.config import ViewConfig


@dataclass
class SceneData:
    """Packed 360° video that a head is trained on, that it is tested on, and the views of both.

    Frames, sound and how views are made (the switches between paper and released code) are those of the model.
    """

    train: list[str]
    """Shard folders. Pictures must be declared equirectangular and sound ambisonic."""
    test: list[str]
    """Shard folders of other videos."""
    views: ViewConfig = field(default_factory=lambda: ViewConfig(flip=0.0))
    """Viewpoints of a draw; never mirrored, and `switches` left alone: both are the model's business."""
    train_draws: int = 1
    """Moments, each with its own views, of each training clip that a pass has."""
    test_draws: int = 1
    """Likewise of each test clip: more of them make the score steadier."""
    sample_by: str = "row"
    """What training draws equally often (`data.sample_by` of avssl-train): row, source, or a column."""
    batch_size: int = 16
    """Draws that are encoded at once."""
    workers: int = 2
    """Decoding processes."""

    def __post_init__(self) -> None:
        for name in ("train_draws", "test_draws", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"scenes.{name} is {getattr(self, name)}, but must be at least 1")
        for name in ("train", "test"):
            if not getattr(self, name):
                raise ConfigError(f"scenes.{name} names no folder; give one written by avssl-shards build")
        if self.views.flip != 0:
            raise ConfigError(f"scenes.views.flip is {self.views.flip}, but scenes are not mirrored here; set it to 0")


@dataclass
class HeadTraining:
    """How a head is trained: Adam at a constant rate that drops at the end of some passes."""

    passes: int = 10
    """Over the training draws."""
    batch_size: int = 32
    """Draws a step; each makes as many pairs as the task takes from it."""
    lr: float = 1e-4
    weight_decay: float = 1e-5
    drop_at: list[int] = field(default_factory=lambda: [8])
    """Passes after which the rate is multiplied by `drop`."""
    drop: float = 0.1
    hidden: int = 512
    """Width between the head's two layers."""
    dropout: float = 0.5
    """Of what the head is given."""

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size", "hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}, but must be at least 1")
        if self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.dropout < 1:
            raise ConfigError("fit.lr must be positive, fit.weight_decay not negative, fit.dropout in [0, 1)")


@dataclass
class SceneTaskConfig:
    """A question about picture and sound of the same views, answered by a small head on the model's features."""

    name: Literal["avsa_bin", "avc_bin", "yaw"]
    """`avsa_bin`: was the sound scene turned about the vertical? `avc_bin`: is it the sound of another video? `yaw`: by
    how many degrees was it turned?"""
    scenes: SceneData
    transformer: bool = False
    """The picture's features are replaced by the sound that the model predicts from all views (methods C.10)."""
    tune: bool = False
    """Train the towers (and transformers) with the head, instead of the head alone on features made once."""
    fit: HeadTraining = field(default_factory=HeadTraining)
    page_clips: int = 0
    """Test clips shown on report.html: their views, their sound, and how well it fits over all turns."""

    def __post_init__(self) -> None:
        if self.page_clips < 0:
            raise ConfigError(f"page_clips is {self.page_clips}, but must be 0 or more")


@dataclass
class SegmentationTraining:
    """How a segmentation head is trained: Adam at a rate that drops at the end of some passes (methods C.10)."""

    passes: int = 10
    """Over the training draws."""
    batch_size: int = 20
    """Draws a step, each with all its views."""
    lr: float = 1e-4
    weight_decay: float = 5e-4
    drop_at: list[int] = field(default_factory=lambda: [5, 8])
    """Passes after which the rate is multiplied by `drop`."""
    drop: float = 0.1

    def __post_init__(self) -> None:
        if self.passes < 1 or self.batch_size < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise ConfigError(
                "fit.passes and fit.batch_size must be at least 1, fit.lr positive, fit.weight_decay not negative"
            )


@dataclass
class AVSSConfig:
    """Audio-visual semantic segmentation: a feature pyramid on the frozen model tells the class of each pixel."""

    name: Literal["avss"]
    scenes: SceneData
    maps: str
    """Folder of target maps: SOURCE_WITHOUT_ENDING/NNNNNN.png, one equirectangular picture of class numbers for each
    1 / `map_fps` of a second from the source's beginning; 255: no class."""
    classes: list[str]
    """What the numbers 0, 1, … mean."""
    setting: Literal["video", "video+audio", "video+audio+context"] = "video"
    """What the coarsest maps get: nothing more, the view's sound, or also what each modality predicts of the other."""
    map_fps: float = 4.0
    test_fov_deg: float = 90.0
    """Field of view of test views, both ways; that of training views is `scenes.views`."""
    lateral: int = 256
    """Channels of the pyramid (the supplement says 128)."""
    width: int = 128
    """Channels of its levels before they are summed; a multiple of 32."""
    fit: SegmentationTraining = field(default_factory=SegmentationTraining)

    def __post_init__(self) -> None:
        if not 2 <= len(self.classes) <= 255:
            raise ConfigError(f"classes has {len(self.classes)} names, but must have 2 to 255")
        if self.width % 32 or self.width < 32 or self.lateral < 1:
            raise ConfigError(f"width is {self.width}, but must be a multiple of 32, and lateral at least 1")
        if self.map_fps <= 0 or not 0 < self.test_fov_deg < 180:
            raise ConfigError("map_fps must be positive and test_fov_deg between 0 and 180")
