"""Which files are trained on and which are kept to judge by: as a list says, or cut so that sources stay whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.datasets import csv_items, folder_items

_SIDES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_UCF101 = r"(.*_g\d+)_c\d+"  # how UCF101 names the clips of one video: a default that fits many copies of its habit


class Labelled(NamedTuple):
    """Files with one class each. side: train, val or test, where a list says so; groups: files of one source."""

    paths: list[Path]
    labels: np.ndarray  # [N] numbers into `classes`
    groups: list[str]
    classes: list[str]
    side: list[str] | None

    def of_side(self, name: str) -> np.ndarray:
        """Numbers of the files of a given side."""
        return np.flatnonzero(np.array(self.side or []) == name)

    def kept(self, keep: np.ndarray) -> Labelled:
        """The files [N] bool alone; classes stay."""
        side = None if self.side is None else [one for one, kept in zip(self.side, keep, strict=True) if kept]
        return Labelled(
            [path for path, kept in zip(self.paths, keep, strict=True) if kept],
            self.labels[keep],
            [group for group, kept in zip(self.groups, keep, strict=True) if kept],
            self.classes,
            side,
        )


class Split(NamedTuple):
    """Numbers of files. folds: of each file the fold that judges it (0: none), where no split is given.

    train: all that is learned from in the end. val: decides when to stop. judged: what the numbers are about; how.
    """

    train: np.ndarray
    val: np.ndarray
    judged: np.ndarray
    folds: np.ndarray | None
    how: str


def read_labelled(data: str, root: str | None = None, group: str | None = None) -> Labelled:
    """A folder of class folders, or a CSV with path, label and perhaps split and group.

    root: what paths in a CSV start from; None: its folder. group: see `DatasetConfig.group`. Raises ConfigError where
    there are fewer than two classes, several labels of a file, a file twice, unknown sides, or a source on two sides.
    """
    path = Path(data)
    if path.is_dir():
        items, sides = folder_items(DatasetConfig(data, group=group)), None
    elif path.suffix.lower() == ".csv":
        items, rows = csv_items(DatasetConfig(root or str(path.parent), "csv", data, group=group))
        sides = [_side(path, row["split"]) for row in rows] if rows and rows[0].get("split") else None
    else:
        raise ConfigError(f"{data}: is neither a folder of class folders nor a .csv with the columns path and label")
    for item in items:
        if len(item.labels) > 1:
            raise ConfigError(f"{item.path}: has {len(item.labels)} labels; a classifier learns one a file")
    twice = [path for path, count in Counter(item.path for item in items).items() if count > 1]
    if twice:
        raise ConfigError(f"{data}: names {twice[0]} more than once; keep one of the rows")
    classes = sorted({item.labels[0] for item in items})
    if len(classes) < 2:
        raise ConfigError(f"{data}: has files of {len(classes)} class(es), at least 2 are needed: FOLDER/CLASS/FILE")
    groups = [item.group if group else _default_group(item.group) for item in items]
    found = Labelled(
        [i.path for i in items], np.array([classes.index(i.labels[0]) for i in items]), groups, classes, sides
    )
    _check_sides(data, found)
    return found


def cut(labels: np.ndarray, groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """The fold 1..`folds` in which each file [N] is judged; 0: never, its class has no other source to learn from.

    Sources stay whole, and those of a class are spread over as many folds as they can be, so that what is left to
    learn from always has the class. A source of several classes counts as one of its most frequent one.
    """
    by_source: dict[str, list[int]] = defaultdict(list)
    for label, group in zip(labels.tolist(), groups, strict=True):
        by_source[group].append(label)
    of_class: dict[int, list[str]] = defaultdict(list)
    for group in sorted(by_source):
        of_class[Counter(by_source[group]).most_common(1)[0][0]].append(group)
    random = np.random.default_rng(seed)
    load = np.zeros(folds)
    fold_of = dict.fromkeys(by_source, 0)
    for label in sorted(of_class):
        sources = random.permutation(of_class[label]).tolist()
        for start in range(0, len(sources) if len(sources) > 1 else 0, folds):
            for group, fold in zip(sources[start : start + folds], np.argsort(load, kind="stable"), strict=False):
                fold_of[group] = int(fold) + 1
                load[fold] += len(by_source[group])
    return np.array([fold_of[group] for group in groups])


def _side(path: Path, text: str) -> str:
    if text.strip().lower() not in _SIDES:
        raise ConfigError(f"{path}: split {text!r} is none of {', '.join(_SIDES)}")
    return _SIDES[text.strip().lower()]


def _default_group(name: str) -> str:
    found = re.fullmatch(_UCF101 + r"\.\w+", name)
    return found[1] if found else name


def _check_sides(data: str, found: Labelled) -> None:
    if found.side is None:
        return
    if not len(found.of_side("train")):
        raise ConfigError(f"{data}: no row's split is train")
    sides: dict[str, str] = {}
    for group, side in zip(found.groups, found.side, strict=True):
        if sides.setdefault(group, side) != side:
            raise ConfigError(f"{data}: the source {group!r} is both {sides[group]} and {side}; split by sources")
