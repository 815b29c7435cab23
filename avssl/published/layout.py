"""What the converter asks of a layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from avssl.models.weights import Difference
from avssl.published.checkpoint import Checkpoint, State


@dataclass
class Choices:
    """What the user says about a conversion."""

    stats_file: Path | None = None  # the front end's mean and std
    ignore_criterion: bool = False  # take the model, whatever its criterion holds


@dataclass
class Conversion:
    """What a layout made of a checkpoint, and what to tell about it."""

    model: nn.Module
    config: Any  # of the model, as its model folder keeps it
    facts: dict[str, Any]  # further entries of config.json
    banks: dict[str, np.ndarray] = field(default_factory=dict)  # for --banks
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Layout(ABC):
    """One way in which weights were published."""

    name: str  # of --kind and --to
    title: str
    licence: str

    @abstractmethod
    def difference(self, model: State) -> Difference:
        """In what this state dict is not that of the layout (of its closest variant)."""

    @abstractmethod
    def convert(self, checkpoint: Checkpoint, choices: Choices) -> Conversion:
        """The model of a checkpoint that does not differ. Raises ModelError if its criterion is none of the layout's,
        ConfigError for statistics that do not fit."""

    @abstractmethod
    def write(self, folder: Path, conversion: Conversion) -> None:
        """Write the model folder."""

    @abstractmethod
    def revert(self, folder: Path) -> dict[str, Any]:
        """The content of a published file from a model folder. Raises ModelError naming what does not fit."""
