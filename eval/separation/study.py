"""What the study of separation is: which sounds, which mixtures, which trainings. Typed values, read from YAML."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avssl import config
from avssl.errors import ConfigError

KINDS = ("one_hot", "soft", "embedding", "adaptive", "shortcut")


@dataclass
class Weak:
    """The weakly labelled clips: pieces of sounds, each somewhere in a clip of noise."""

    clip_s: float = 4.0
    """Length of a clip; its label says what is in it, nothing says where."""
    piece_s: float = 2.0
    """At most this much of a sound is in one clip; a longer sound makes several clips."""
    hop_s: float = 1.0
    """From one piece of a sound to the next."""
    noise_db: float = -60.0
    """Level of the white noise that fills the clip, relative to full scale."""


@dataclass
class Rendered:
    """Sounds of the same classes that sound fonts play, to learn from beside the real ones."""

    fonts: list[str]
    """Files in the folder AVSSL_SOUND_FONTS (default /usr/share/sounds/sf2); used in turn."""
    sounds: int
    """Of each class."""
    duration_s: float = 2.0


@dataclass
class Expectation:
    """A number that the study must reach. For small studies that a machine watches."""

    condition: str
    query: str
    at_least: float


@dataclass
class Study:
    name: str
    tagger: dict[str, Any]
    """The settings of avssl-train for the tagger, but for what the study gives: shards, classes, folder."""
    separator: dict[str, Any]
    """Likewise for the separator of the first condition."""
    conditions: list[str]
    """Kinds of queries. The first is trained from the start; each is then trained for `further` steps from what the
    first has learned, with a conditioning and query net of its own."""
    further: dict[str, Any] = field(default_factory=dict)
    """What differs from `separator` in that training."""
    weak: Weak = field(default_factory=Weak)
    rendered: Rendered | None = None
    """null: only real sounds."""
    classes: int = 10
    """How many of the classes there are, the first by name."""
    held_out: int = 3
    """Sounds of each class that nothing is trained on: the mixtures are made of these."""
    pairs: int = 6
    """Mixtures in which a class is the wanted one."""
    mixture_s: float = 2.0
    song_s: float = 60.0
    """How much of the song is separated; 0: none."""
    seed: int = 0
    expect: list[Expectation] = field(default_factory=list)

    def __post_init__(self) -> None:
        for kind in self.conditions:
            if kind not in KINDS:
                raise ConfigError(
                    f"conditions: {kind!r} is none of the kinds of queries; {config.nearest(kind, KINDS)}"
                )

    @classmethod
    def read(cls, path: str | Path) -> Study:
        return config.build(cls, config.read(path))

    @property
    def rate_hz(self) -> int:
        return self.separator["model"]["separator"]["rate_hz"]

    @property
    def digest(self) -> str:
        """What the trainings depend on, in short: work of another digest does not count."""
        tree = config.plain(self)
        for key in ("name", "expect", "pairs", "mixture_s", "song_s"):
            del tree[key]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]
