"""What a model is and what it expects to be fed, as plain typed values (YAML, command line, config.json). No torch."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from avssl.config import build, merged, plain
from avssl.errors import ConfigError
from avssl.spatial.config import Switches


@dataclass
class VideoInput:
    """The clip a video tower expects: `frames` frames at `fps`, cut square from the centre, normalised per channel."""

    fps: float
    frames: int
    size_px: int  # side of the square crop
    resize_px: int  # the short side is resized to this before the centre crop (random crops ignore it)
    mean: tuple[float, float, float]  # of pixels in [0, 1], RGB
    std: tuple[float, float, float]

    def __post_init__(self):
        if self.resize_px < self.size_px:
            raise ConfigError(
                f"video_input: resize_px {self.resize_px} is smaller than the crop size_px {self.size_px}; raise it"
            )

    @property
    def duration_s(self) -> float:
        return self.frames / self.fps


@dataclass
class FrontEndConfig:
    """A front end by name (`avid_spectrogram`, `log_mel`) and what differs from its defaults."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    stats_file: str | None = None  # .npz or .json with per-bin `mean` and `std` in dB; read once, kept with the weights


@dataclass
class AudioInput:
    """The waveform an audio tower expects, and the front end that makes its picture."""

    rate_hz: int
    duration_s: float
    channels: int
    front_end: FrontEndConfig

    @property
    def samples(self) -> int:
        return round(self.duration_s * self.rate_hz)


@dataclass
class TowerConfig:
    """A registered tower by name, what differs from its defaults, and optionally a file of weights to start from."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None  # the user's own file: .safetensors, or a PyTorch file that holds only tensors


@dataclass
class HeadConfig:
    """Projection head: linear layers with ReLU between them, from the tower's width over `hidden` to `dim`."""

    hidden: list[int] = field(default_factory=lambda: [512, 512])
    dim: int = 128


@dataclass
class AlignmentConfig:
    """What AVSA has on top of the towers (methods C.7): transformers over the views of a sample, and linear heads."""

    depth: int | None = 2
    """Layers of each of the two transformers, at most 8; 0: predictions come from the heads alone; null: there are no
    predictions, only the two heads that AVC compares."""
    heads: int = 1
    """Attention heads."""
    expansion: int = 4
    """Width of the feed-forward part over that of the features."""
    dropout: float = 0.1
    context: Literal["attention", "mlp"] = "attention"
    """`mlp`: a second feed-forward part in the attention's place, so that a view knows nothing of the others."""
    final_relu: bool = False
    """A ReLU at the end of each layer, which the released code has and its paper has not."""
    dim: int = 128
    """Length of the vectors that are compared."""
    switches: Switches = field(default_factory=Switches)
    """How the views that the model was trained on were made; `data.views.switches` must be the same."""

    def __post_init__(self) -> None:
        if self.depth is not None and not 0 <= self.depth <= 8:
            raise ConfigError(f"model.alignment.depth is {self.depth}, but must be from 0 to 8, or null")
        for name in ("heads", "expansion", "dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.alignment.{name} is {getattr(self, name)}, but must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.alignment.dropout is {self.dropout}, but must be in [0, 1)")


@dataclass
class ModelConfig:
    """Two towers, either of which may be absent. Values of an input left out are those the tower was made for.

    `head: null` compares the towers' own features, which then must be equally long.
    """

    kind: ClassVar[str] = "two_tower"

    video: TowerConfig | None = None
    audio: TowerConfig | None = None
    video_input: VideoInput | None = None
    audio_input: AudioInput | None = None
    head: HeadConfig | None = field(default_factory=HeadConfig)
    alignment: AlignmentConfig | None = None

    def __post_init__(self):
        from avssl.models.registry import tower_facts

        for kind in ("video", "audio"):
            tower = getattr(self, kind)
            facts = tower_facts(kind, tower.name) if tower else None  # also refuses an unknown name
            if facts and getattr(self, f"{kind}_input") is None:
                setattr(self, f"{kind}_input", copy.deepcopy(facts.input))

    @classmethod
    def completed(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Fill in the values of a partly given input that the tower was made for.

        A front end that is named is taken as it is given; otherwise its values, too, go onto those of the tower's.
        """
        from avssl.models.registry import tower_facts

        for kind in ("video", "audio"):
            tower, given = value.get(kind), value.get(f"{kind}_input")
            name = tower.get("name") if isinstance(tower, dict) else None
            if not isinstance(name, str) or not isinstance(given, dict):
                continue
            made_for = plain(tower_facts(kind, name).input)
            front_end = given.get("front_end")
            if isinstance(front_end, dict) and "name" not in front_end:
                given = {**given, "front_end": merged(made_for["front_end"], front_end)}
            value = {**value, f"{kind}_input": {**made_for, **given}}
        return value

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str = "model") -> ModelConfig:
        """The inverse of `to_dict`. Raises ConfigError naming an unknown, missing or mistyped key."""
        return build(cls, value, where)

    def without_files(self) -> ModelConfig:
        """A copy that no longer names files to start from: for a model whose weights already hold what they said."""
        copy = ModelConfig.from_dict(self.to_dict())
        for tower in (copy.video, copy.audio):
            if tower:
                tower.weights = None
        if copy.audio_input:
            copy.audio_input.front_end.stats_file = None
        return copy
