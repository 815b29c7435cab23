"""What the study is: worlds, methods, budgets, and which is run in which. Typed values, read from YAML; no torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from avssl import config
from avssl.errors import ConfigError
from eval.robustness.study import Expectation

Hearing = Literal["ambisonics", "tetrahedral", "stereo", "mono"]
"""`tetrahedral`: ambisonics through the front end `beam_mel`; the others: `data.hearing` through `log_mel`."""


@dataclass
class World:
    """Where the scenes come from (`avssl.synthetic.scene360`). The same for all methods and seeds."""

    name: str
    label: str = ""
    scenes: int = 1200
    """To train on."""
    held_out: int = 500
    """Scenes of another seed, to measure on: three fifths to train heads on frozen features, the rest to test them."""
    classes: int = 8
    objects: tuple[int, int] = (2, 4)
    """Least and greatest number of objects a scene, all of other classes."""
    latitude_deg: float = 20.0
    spacing_deg: float = 50.0
    size: float = 1.8
    """Of the objects, see `Scene360Config`: 40° across on average, a third to a half of a view."""
    variation: float = 0.3
    noise: float = 0.5
    place: float = 0.0
    """How far every scene has a look and a diffuse sound of its own, see `avssl.synthetic.scene360_place`."""
    kind: Literal["rendered", "photos", "chart"] = "rendered"
    """`photos`: backgrounds are photos and sounds recordings from $AVSSL_MEDIA, shapes are rendered; `chart`: the real
    360° clip there with sources at known directions, its first part to train on and the rest to measure on."""

    @property
    def digest(self) -> str:
        """What the scenes depend on, in short."""
        tree = config.plain(self)
        del tree["name"], tree["label"]
        return digest_of(tree)


@dataclass
class Training:
    """The budget: equal for all methods that are compared."""

    views_a_step: int = 48
    """Scenes times views (or moments) of a step."""
    first_steps: int = 600
    """First phase: AVC on one view a scene. A method without curriculum has its own objective here too."""
    steps: int = 400
    """Second phase: the method."""
    lr: float = 1e-3
    """The peak of each phase: it rises in `warm_up_steps`, then falls as half a cosine to `lr_final` of it."""
    warm_up_steps: int = 50
    lr_final: float = 0.05
    width: int = 8
    """Of the towers."""
    fov_deg: tuple[float, float] = (80.0, 100.0)
    latitude_deg: tuple[float, float] = (-20.0, 20.0)
    """Of the views."""
    spacing_deg: float = 36.0
    """Least angle between two views of a scene; less where so many views have no room."""
    flip: float = 0.5


@dataclass
class Method:
    """What differs between the runs that are compared."""

    name: str
    label: str = ""
    mode: Literal["avc", "avts", "avsa"] = "avsa"
    views: int = 4
    """Views (avts: moments) of a scene in the second phase."""
    hearing: Hearing = "tetrahedral"
    curriculum: bool = True
    negatives: Literal["easy+hard", "hard", "easy"] = "easy+hard"
    candidates: Literal["paper", "released"] = "released"
    """Which easy negatives a view has: one view of each other scene, as the published model had, or all (`paper`)."""
    depth: int | None = 2
    """Layers of the transformers; avc has none: null."""
    context: Literal["attention", "mlp"] = "attention"
    training: dict[str, Any] = field(default_factory=dict)
    """Put over the study's training."""

    def __post_init__(self) -> None:
        if (self.mode == "avc") != (self.depth is None):
            raise ConfigError(f"methods: {self.name} has mode {self.mode} and depth {self.depth}; avc alone has null")


@dataclass
class Block:
    """Every one of `methods` in `world`, `seeds` times."""

    world: str
    methods: list[str]
    seeds: int


@dataclass
class Study:
    name: str
    training: Training
    worlds: list[World]
    methods: list[Method]
    blocks: list[Block]
    expect: list[Expectation] = field(default_factory=list)

    def __post_init__(self) -> None:
        for block in self.blocks:
            for kind, names, known in (
                ("worlds", [block.world], self.worlds),
                ("methods", block.methods, self.methods),
            ):
                for name in names:
                    if name not in (found := [entry.name for entry in known]):
                        raise ConfigError(f"blocks: {name!r} is none of the {kind}; {config.nearest(name, found)}")

    @classmethod
    def read(cls, path: str | Path) -> Study:
        return config.build(cls, config.read(path))

    def block_of(self, run: Run) -> int:
        """The number of the first block that has this run. Blocks are made one after another, so that the first are
        whole where a study is cut off."""
        return next(
            number
            for number, block in enumerate(self.blocks)
            if block.world == run.world.name and run.method.name in block.methods and run.seed < block.seeds
        )

    def runs(self) -> list[Run]:
        """Every run once, in the order of the blocks."""
        worlds = {world.name: world for world in self.worlds}
        methods = {method.name: method for method in self.methods}
        found = {}
        for block in self.blocks:
            for seed in range(block.seeds):
                for name in block.methods:
                    training = config.merged(config.plain(self.training), methods[name].training)
                    run = Run(worlds[block.world], methods[name], seed, config.build(Training, training, "training"))
                    found[run.name] = run
        return list(found.values())


@dataclass(frozen=True)
class Run:
    """One training run. Runs of equal `start` share their first phase, which is computed once."""

    world: World
    method: Method
    seed: int
    training: Training

    @property
    def name(self) -> str:
        return f"{self.world.name}-{self.method.name}-{self.seed}"

    @property
    def start(self) -> str:
        """What the first phase depends on, in short."""
        if not self.method.curriculum:
            return self.digest
        tree = self._common()
        del tree[2]["steps"]
        return digest_of([tree, self.method.hearing])

    @property
    def first(self) -> Run:
        """The run whose first phase this one has: AVC with the same hearing, or without curriculum itself."""
        if not self.method.curriculum:
            return self
        return replace(self, method=Method("avc", mode="avc", views=1, depth=None, hearing=self.method.hearing))

    @property
    def digest(self) -> str:
        """What the whole run depends on, in short: a finished run of another digest does not count."""
        method = config.plain(self.method)
        del method["name"], method["label"], method["training"]  # which is in the run's own
        return digest_of([self._common(), method])

    def _common(self) -> list[Any]:
        return [self.world.digest, self.seed, config.plain(self.training)]


def digest_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
