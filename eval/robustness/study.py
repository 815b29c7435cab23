"""What a study is: worlds, methods, budgets, and which is run in which. Typed values, read from YAML; no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from avssl import config
from avssl.errors import ConfigError


@dataclass
class World:
    """Where the clips come from and how many of them carry a wrong sound."""

    name: str
    label: str = ""
    kind: Literal["rendered", "real"] = "rendered"
    """`rendered`: `avssl.synthetic.world`; `real`: short clips cut from $AVSSL_MEDIA/av_labelled."""
    mismatch: float = 0.0
    """Share of training clips whose sound is that of a clip of another class. Held-out clips are all right."""
    clips: int = 1000
    """Training clips; of rendered worlds, as all below."""
    held_out: int = 400
    classes: int = 16
    class_weights: list[float] = field(default_factory=list)
    """Relative frequency of each class, in training and held-out clips; empty: all alike."""
    variation: float = 1.0
    noise: float = 1.0


@dataclass
class Training:
    """The budget: equal for all methods that are compared."""

    batch_size: int = 32
    warm_up_steps: int = 800
    """First phase: plain xID."""
    steps: int = 500
    """Second phase: the method."""
    lr: float = 1e-3
    """Where each phase starts; it falls as half a cosine to `lr_final` of it."""
    second_lr: float = 1e-3
    lr_final: float = 0.05
    width: int = 16
    """Of the towers."""


@dataclass
class Method:
    """What differs in the second phase, and for ablations in what comes before."""

    name: str
    label: str = ""
    task: dict[str, Any] = field(default_factory=dict)
    """Put over the study's task for the second phase."""
    oracle: bool = False
    """Weights by the truth: mismatched pairs get `task.weights.minimum`, all others 1."""
    first_task: dict[str, Any] = field(default_factory=dict)
    """Put over the study's task for both phases."""
    training: dict[str, Any] = field(default_factory=dict)
    """Put over the study's training."""


@dataclass
class Block:
    """Every one of `methods` in every one of `worlds`, `seeds` times."""

    worlds: list[str]
    methods: list[str]
    seeds: int


@dataclass
class Expectation:
    """A number that the study must reach: the mean over seeds. For small studies that a machine watches."""

    world: str
    method: str
    measure: str
    at_least: float


@dataclass
class Study:
    name: str
    training: dict[str, Any]
    task: dict[str, Any]
    worlds: list[World]
    methods: list[Method]
    blocks: list[Block]
    expect: list[Expectation] = field(default_factory=list)

    def __post_init__(self) -> None:
        for block in self.blocks:
            for kind, known in (("worlds", self.worlds), ("methods", self.methods)):
                for name in getattr(block, kind):
                    if name not in (names := [entry.name for entry in known]):
                        raise ConfigError(f"blocks: {name!r} is none of the {kind}; {config.nearest(name, names)}")

    @classmethod
    def read(cls, path: str | Path) -> Study:
        return config.build(cls, config.read(path))

    def runs(self) -> list[Run]:
        """Every run once, in the order of the blocks."""
        worlds = {world.name: world for world in self.worlds}
        methods = {method.name: method for method in self.methods}
        found = {}
        for block in self.blocks:
            for seed in range(block.seeds):
                for world in block.worlds:
                    for name in block.methods:
                        method = methods[name]
                        run = Run(
                            worlds[world],
                            method,
                            seed,
                            config.merged(self.task, method.first_task),
                            config.build(Training, config.merged(self.training, method.training), "training"),
                        )
                        found[run.name] = run
        return list(found.values())


@dataclass(frozen=True)
class Run:
    """One training run. Runs of equal `start` share their first phase, which is computed once."""

    world: World
    method: Method
    seed: int
    task: dict[str, Any]
    training: Training

    @property
    def name(self) -> str:
        return f"{self.world.name}-{self.method.name}-{self.seed}"

    @property
    def start(self) -> str:
        """What the first phase depends on, in short."""
        tree = config.plain([self.world, self.task, self.training, self.seed])
        del tree[0]["label"], tree[2]["steps"], tree[2]["second_lr"]
        return _digest(tree)

    @property
    def digest(self) -> str:
        """What the whole run depends on, in short: a finished run of another digest does not count."""
        return _digest([self.start, *config.plain([self.method.task, self.method.oracle, self.training])])


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
