"""The protocol `frozen`: classes by simple classifiers on frozen features, over the folds of a labelled data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avssl.errors import ConfigError
from avssl.evaluation import features
from avssl.evaluation.classifiers import class_scores
from avssl.evaluation.datasets import Fold, LabelledItem, read_folds
from avssl.evaluation.features import Features
from avssl.evaluation.frozen_config import FrozenConfig
from avssl.evaluation.protocol import EvalConfig, Outcome


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Train each classifier on the windows of the training items; a test item's scores are the mean of its windows'."""
    protocol: FrozenConfig = config.protocol
    folds = read_folds(protocol.data, config.seed)
    items = list({item.path: item for fold in folds for item in (*fold.train, *fold.test)}.values())
    table = Path(protocol.embeddings) if protocol.embeddings else features.embed(config, items, out, advance)
    found = features.read(table, protocol.feature, Path(protocol.data.root))
    missing = {item.path: _why(item, protocol.feature) for item in items if item.path.resolve() not in found.of}
    folds = [Fold(fold.name, *(_present(side, missing) for side in (fold.train, fold.test))) for fold in folds]

    classes = sorted({label for item in items for label in item.labels})
    if len(classes) < 2:
        raise ConfigError(f"protocol.data: {protocol.data.root} has {len(classes)} class; at least 2 are needed")
    measured = [_measured(fold, found, classes, protocol) for fold in folds]
    rows = [{"fold": fold.name, **result.metrics} for fold, result in zip(folds, measured, strict=True)]
    metrics = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "fold"}
    for shots in protocol.shots:
        metrics |= _few_shot(folds, found, classes, protocol, shots, config.seed)
    chance = float(np.mean([result.chance for result in measured]))
    return Outcome(
        metrics,
        items=len(items) - len(missing),
        chance=dict.fromkeys([key for key in metrics if key.endswith("accuracy")], chance),
        skipped=[{"item": str(path), "cause": cause} for path, cause in missing.items()],
        tables={"folds": rows, "classes": _by_class(measured, classes)},
        extra={"classes": len(classes), "table": str(table), "features": found.rows.shape[1]},
    )


class _Result(NamedTuple):
    """Of one fold. metrics by name; chance: of always answering the most frequent class of the training items;
    by_class: (classifier, class) -> values over the fold's items (right or not, or one average precision)."""

    metrics: dict[str, float]
    chance: float
    by_class: dict[tuple[str, int], list[float]]


def _measured(fold: Fold, found: Features, classes: list[str], protocol: FrozenConfig) -> _Result:
    _check(fold)
    truth = _truth(fold.test, classes)
    metrics: dict[str, float] = {}
    by_class: dict[tuple[str, int], list[float]] = defaultdict(list)
    for kind in protocol.classifiers:
        scores = _scores(kind, fold.train, fold.test, found, classes, protocol)
        if protocol.multilabel:
            from sklearn.metrics import average_precision_score

            for number in map(int, np.flatnonzero(truth.any(0))):
                by_class[kind, number].append(float(average_precision_score(truth[:, number], scores[:, number])))
            metrics[f"{kind}_map"] = float(np.mean([series[-1] for (of, _), series in by_class.items() if of == kind]))
        else:
            right = truth[np.arange(len(scores)), scores.argmax(1)]
            metrics[f"{kind}_accuracy"] = float(right.mean())
            for number, hit in zip(truth.argmax(1).tolist(), right, strict=True):
                by_class[kind, number].append(float(hit))
    frequent = _truth(fold.train, classes).sum(0).argmax()
    return _Result(metrics, float(truth[:, frequent].mean()), by_class)


def _few_shot(
    folds: list[Fold], found: Features, classes: list[str], protocol: FrozenConfig, shots: int, seed: int
) -> dict[str, float]:
    """Mean and standard deviation of the accuracy over folds and draws of `shots` training items a class."""
    values = defaultdict(list)
    for number, fold in enumerate(folds):
        of_class = defaultdict(list)
        for item in fold.train:
            of_class[item.labels[0]].append(item)
        fewest = min(of_class, key=lambda label: len(of_class[label]))
        if len(of_class[fewest]) < shots:
            raise ConfigError(
                f"protocol.shots has {shots}, but fold {fold.name} has {len(of_class[fewest])} usable items of class"
                f" {fewest!r} to draw from"
            )
        for trial in range(protocol.trials):
            random = np.random.default_rng([seed, number, trial, shots])
            drawn = [of_class[c][i] for c in sorted(of_class) for i in random.permutation(len(of_class[c]))[:shots]]
            few = _measured(Fold(fold.name, drawn, fold.test), found, classes, protocol)
            for key, value in few.metrics.items():
                values[key].append(value)
    return {
        name: statistic
        for key, series in values.items()
        for name, statistic in (
            (f"{key.removesuffix('_accuracy')}_{shots}shot_accuracy", float(np.mean(series))),
            (f"{key.removesuffix('_accuracy')}_{shots}shot_std", float(np.std(series))),
        )
    }


def _scores(
    kind: str,
    train: Sequence[LabelledItem],
    test: Sequence[LabelledItem],
    found: Features,
    classes: list[str],
    protocol: FrozenConfig,
) -> np.ndarray:
    """[items of `test`, C]; classes that no training item has get the lowest score."""
    x, of_train = _windows(train, found)
    z, of_test = _windows(test, found)
    labels = _truth(train, classes)
    seen = np.flatnonzero(labels.any(0))
    y = labels[of_train][:, seen] if protocol.multilabel else np.searchsorted(seen, labels.argmax(1))[of_train]
    if len(seen) < 2:
        raise ConfigError("protocol.data: a fold has training items of one class only; at least 2 are needed")
    by_window = class_scores(kind, x, y, z, c=protocol.c, neighbours=protocol.neighbours)
    sums = np.zeros((len(test), len(seen)))
    np.add.at(sums, of_test, by_window)
    scores = np.full((len(test), len(classes)), -np.inf)
    scores[:, seen] = sums / np.bincount(of_test, minlength=len(test))[:, None]
    return np.where(np.isfinite(scores), scores, np.finfo(np.float64).min)


def _windows(items: Sequence[LabelledItem], found: Features) -> tuple[np.ndarray, np.ndarray]:
    """The windows [N, D] of the items, and of which item each is [N]."""
    rows = [found.of[item.path.resolve()] for item in items]
    return found.rows[np.concatenate(rows)], np.repeat(np.arange(len(items)), [len(part) for part in rows])


def _truth(items: Sequence[LabelledItem], classes: list[str]) -> np.ndarray:
    """[items, C] bool."""
    return np.array([[label in item.labels for label in classes] for item in items])


def _present(items: Sequence[LabelledItem], missing: dict[Path, str]) -> list[LabelledItem]:
    return [item for item in items if item.path not in missing]


def _why(item: LabelledItem, feature: str) -> str:
    return f"has no {feature} in the table" if item.path.is_file() else "no such file"


def _check(fold: Fold) -> None:
    if not fold.train or not fold.test:
        raise ConfigError(f"protocol.data: nothing is left of fold {fold.name} without the items that are missing")


def _by_class(results: list[_Result], classes: list[str]) -> list[dict[str, Any]]:
    """A row a class: the mean of each classifier over all folds."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for result in results:
        for key, series in result.by_class.items():
            values[key] += series
    kinds = sorted({kind for kind, _ in values})
    rows = []
    for number, name in enumerate(classes):
        means = {kind: float(np.mean(values[kind, number])) if values[kind, number] else None for kind in kinds}
        rows.append({"class": name, **means})
    return rows
