"""Labelled data sets from their official lists and folders: what is trained on and what is tested, fold by fold."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avssl.errors import ConfigError
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.shards.sources import MEDIA_EXTENSIONS


class LabelledItem(NamedTuple):
    """A file and what is known of it. group: items of one source share it."""

    path: Path
    labels: tuple[str, ...]
    group: str


class Fold(NamedTuple):
    """What is trained on and what is tested."""

    name: str
    train: list[LabelledItem]
    test: list[LabelledItem]


def read_folds(data: DatasetConfig, seed: int = 0) -> list[Fold]:
    """The folds of a data set; `seed` decides those that are not official.

    Files that the lists name need not exist. Raises ConfigError if lists are missing or hold no such fold, or if a
    source lies on both sides of a fold.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise ConfigError(f"protocol.data.root: {root} is no folder")
    folds = _KINDS[data.kind](data, root, seed)
    if data.fold is not None:
        folds = [fold for fold in folds if fold.name == str(data.fold)]
        if not folds:
            raise ConfigError(f"protocol.data.fold is {data.fold}, but {data.kind} under {root} has no such fold")
    for fold in folds:
        _check(fold, data)
    return folds


def _check(fold: Fold, data: DatasetConfig) -> None:
    where = f"protocol.data: fold {fold.name} of {data.kind} under {data.root}"
    for name, items in (("train on", fold.train), ("test", fold.test)):
        if not items:
            raise ConfigError(f"{where} has nothing to {name}; is it the layout that docs/evaluation.md describes?")
    shared = {item.group for item in fold.train} & {item.group for item in fold.test}
    if shared:
        raise ConfigError(
            f"{where} has the source {min(shared)!r} among what is trained on and what is tested; split by sources"
        )


def folder_items(data: DatasetConfig) -> list[LabelledItem]:
    """root/CLASS/…/FILE, sorted by path."""
    root = Path(data.root)
    paths = sorted(
        path for path in root.glob("*/**/*") if path.suffix[1:].lower() in MEDIA_EXTENSIONS and path.is_file()
    )
    return [_item(data, root, path.relative_to(root).as_posix(), [path.relative_to(root).parts[0]]) for path in paths]


def csv_items(data: DatasetConfig) -> tuple[list[LabelledItem], list[dict[str, str]]]:
    """The items of the list `data.lists`, and its rows."""
    path = Path(data.lists or "")
    rows = _read_csv(path)
    for column in ("path", "label"):
        if rows and column not in rows[0]:
            raise ConfigError(f"{path}: has no column {column!r}; it needs path and label")
    root = Path(data.root)
    return [_item(data, root, row["path"], row["label"].split(";"), row.get("group")) for row in rows], rows


def _folder(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """root/CLASS/…/FILE, cut into folds."""
    return _cut(folder_items(data), data.folds, seed)


def _csv(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """A list with `split`, or `fold`, or neither."""
    items, rows = csv_items(data)
    if rows and rows[0].get("fold"):
        return _leave_out(items, [row["fold"] for row in rows])
    if rows and rows[0].get("split"):
        splits = [row["split"] for row in rows]
        unknown = set(splits) - {"train", "test"}
        if unknown:
            raise ConfigError(f"{data.lists}: split {min(unknown)!r} is neither train nor test")
        train, test = ([i for i, s in zip(items, splits, strict=True) if s == name] for name in ("train", "test"))
        return [Fold("1", train, test)]
    return _cut(items, data.folds, seed)


def _ucf101(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """ROOT/Class/v_Class_g08_c01.avi; LISTS/trainlist01.txt ("Class/v_Class_g08_c01.avi 1"), testlist01.txt, …"""

    def read(path: Path) -> list[LabelledItem]:
        names = [line.split()[0] for line in _lines(path)]
        return [_item(data, root, name, [name.split("/")[0]], _first(r"(.*_g\d+)_c\d+", name)) for name in names]

    lists = Path(data.lists or "")
    numbers = [number for number in range(1, 4) if data.fold in (None, number)]
    return [Fold(str(n), *(read(lists / f"{subset}list{n:02d}.txt") for subset in ("train", "test"))) for n in numbers]


def _hmdb51(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """ROOT/class/NAME.avi; LISTS/class_test_split1.txt ("NAME.avi 1": 1 train, 2 test, 0 unused), …"""
    folds = []
    for number in range(1, 4):
        sides: dict[str, list[LabelledItem]] = {"0": [], "1": [], "2": []}
        for path in sorted(Path(data.lists or "").glob(f"*_test_split{number}.txt")):
            label = path.stem.removesuffix(f"_test_split{number}")
            for line in _lines(path):
                name, use = line.rsplit(maxsplit=1)
                sides[use].append(_item(data, root, f"{label}/{name}", [label]))
        if any(sides.values()):
            folds.append(Fold(str(number), sides["1"], sides["2"]))
    if not folds:
        raise ConfigError(f"protocol.data.lists: {data.lists} holds no CLASS_test_splitN.txt of HMDB51")
    return folds


def _kinetics(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """LISTS/train.csv and validate.csv (or val.csv): label, youtube_id, time_start, time_end, split; the clips, already
    cut, anywhere under ROOT as ID_000010_000020.mp4 (the numbers are time_start and time_end)."""
    lists = Path(data.lists or "")
    validate = next((path for name in ("validate", "val") if (path := lists / f"{name}.csv").is_file()), None)
    if validate is None:
        raise ConfigError(f"protocol.data.lists: {lists} holds no validate.csv (or val.csv) of Kinetics")
    found = {path.stem: path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.suffix}
    sides = []
    for path in (lists / "train.csv", validate):
        items = []
        for row in _read_csv(path):
            start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
            name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
            place = found.get(name, f"{row['split']}/{name}.mp4")
            items.append(_item(data, root, place, [row["label"]], row["youtube_id"]))
        sides.append(items)
    return [Fold("1", *sides)]


def _esc50(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """ROOT/audio/*.wav, ROOT/meta/esc50.csv with filename, fold, category, src_file."""
    rows = _read_csv(root / "meta" / "esc50.csv")
    items = [_item(data, root, f"audio/{row['filename']}", [row["category"]], row["src_file"]) for row in rows]
    return _leave_out(items, [row["fold"] for row in rows])


def _fsdkaggle2018(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """ROOT/FSDKaggle2018.{audio_train,audio_test,meta}, as unpacked."""
    lists = {"train": "train_post_competition.csv", "test": "test_post_competition_scoring_clips.csv"}
    sides = []
    for subset, name in lists.items():
        rows = _read_csv(root / "FSDKaggle2018.meta" / name)
        folder = f"FSDKaggle2018.audio_{subset}"
        sides.append([_item(data, root, f"{folder}/{row['fname']}", [row["label"]]) for row in rows])
    return [Fold("1", *sides)]


def _dcase(data: DatasetConfig, root: Path, seed: int) -> list[Fold]:
    """ROOT/evaluation_setup/fold1_train.txt and fold1_evaluate.txt: path, tab, scene; as DCASE 2016 to 2018 have it."""
    folds = []
    for path in sorted((root / "evaluation_setup").glob("fold*_train.txt")):
        number = path.name.removeprefix("fold").removesuffix("_train.txt")
        sides = []
        for subset in (path, path.with_name(f"fold{number}_evaluate.txt")):
            pairs = [line.split("\t")[:2] for line in _lines(subset)]
            sides.append([_item(data, root, name, [label]) for name, label in pairs])
        folds.append(Fold(number, *sides))
    if not folds:
        raise ConfigError(f"protocol.data.root: {root} holds no evaluation_setup/foldN_train.txt of DCASE")
    return folds


_KINDS: dict[str, Callable[[DatasetConfig, Path, int], list[Fold]]] = {
    "folder": _folder,
    "csv": _csv,
    "ucf101": _ucf101,
    "hmdb51": _hmdb51,
    "kinetics": _kinetics,
    "esc50": _esc50,
    "fsdkaggle2018": _fsdkaggle2018,
    "dcase": _dcase,
}


def _item(data: DatasetConfig, root: Path, name: str, labels: Iterable[str], group: str | None = None) -> LabelledItem:
    if data.group is not None:
        group = _first(data.group, name)
    return LabelledItem(root / name, tuple(label.strip() for label in labels), group or name)


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _leave_out(items: list[LabelledItem], numbers: list[str]) -> list[Fold]:
    """One fold a number: trained on the others."""
    names = sorted(set(numbers), key=lambda text: (len(text), text))
    pairs = list(zip(items, numbers, strict=True))
    return [Fold(n, [i for i, at in pairs if at != n], [i for i, at in pairs if at == n]) for n in names]


def _cut(items: list[LabelledItem], folds: int, seed: int) -> list[Fold]:
    """Folds of about equal classes, sources whole."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [item.group for item in items]
    if len(set(groups)) < folds:
        raise ConfigError(f"protocol.data.folds is {folds}, but there are {len(set(groups))} sources; lower it")
    cutter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    first = [item.labels[0] for item in items]
    numbers = np.empty(len(items), int)
    for number, (_, test) in enumerate(cutter.split(first, first, groups)):
        numbers[test] = number + 1
    return _leave_out(items, [str(number) for number in numbers])


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see docs/evaluation.md for the layout") from None


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); see docs/evaluation.md for the layout") from None
    return (line for line in text.splitlines() if line.strip())
