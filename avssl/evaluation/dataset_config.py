"""Which labelled data an evaluation is over, and how it is split. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from avssl.errors import ConfigError


@dataclass
class DatasetConfig:
    """A labelled data set as its owners lay it out, or a folder or list of your own."""

    root: str
    """The folder with the media."""
    kind: Literal["folder", "csv", "ucf101", "hmdb51", "kinetics", "esc50", "fsdkaggle2018", "dcase"] = "folder"
    """`folder`: one folder a class. `csv`: the list `lists`. The others: the official layout and lists."""
    lists: str | None = None
    """csv: a file with the columns path and label (several labels divided by `;`), and perhaps split (train, test),
    fold, group. ucf101, hmdb51, kinetics: the folder of the official lists. esc50, fsdkaggle2018, dcase: not
    needed."""
    fold: int | None = None
    """Only this fold; null: all of them, and their mean."""
    folds: int = 5
    """Into how many parts a folder, or a list without split and fold, is cut; groups stay together."""
    group: str | None = None
    """A regular expression whose first group, found in a path, names its source, e.g. `_g(\\d+)_`: items of one source
    are never on both sides of a split. Null: a list's column `group`, otherwise each file is a source of its own."""

    def __post_init__(self) -> None:
        if self.kind in ("csv", "ucf101", "hmdb51", "kinetics") and self.lists is None:
            raise ConfigError(f"protocol.data.lists: missing; kind {self.kind!r} needs it")
        if self.folds < 2:
            raise ConfigError(f"protocol.data.folds is {self.folds}, but must be 2 or more")
        if self.group is not None:
            try:
                groups = re.compile(self.group).groups
            except re.error as error:
                raise ConfigError(f"protocol.data.group: not a regular expression ({error})") from None
            if not groups:
                raise ConfigError(f"protocol.data.group is {self.group!r}, which has no group in parentheses")
