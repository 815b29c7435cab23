"""The protocol `classify`: how often a finished classifier is right about labelled files that are new to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import avssl
from avssl.errors import ConfigError, MediaError
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.finetuning.judged import Judged, confusion, metrics_of
from avssl.finetuning.protocol_config import Classify
from avssl.finetuning.split import read_labelled


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Classify each file; of a list with a column split, those of `test` alone."""
    protocol: Classify = config.protocol
    if config.model is None:
        raise ConfigError("model: missing; name a folder that avssl-finetune wrote")
    model = avssl.load(config.model, device=config.device, kind="classifier")
    labelled = read_labelled(protocol.data, protocol.root)
    if labelled.side is not None:
        labelled = labelled.kept(np.array(labelled.side) == "test")
    unknown = {labelled.classes[number] for number in labelled.labels} - set(model.classes)
    if unknown:
        raise ConfigError(f"protocol.data: has the class {min(unknown)!r}, which the classifier does not know")
    numbers = np.array([model.classes.index(name) if name in model.classes else -1 for name in labelled.classes])
    labelled = labelled._replace(labels=numbers[labelled.labels], classes=model.classes)
    found, skipped = {}, []
    for number, path in enumerate(labelled.paths):
        try:
            chances = model.classify_file(path)
            found[number] = [chances[name] for name in model.classes]
        except MediaError as error:
            cause = "no such file" if not path.exists() else f"{error.detail} ({error.reason})"
            skipped.append({"item": str(path), "cause": cause})
        advance(1)
    if not found:
        return Outcome({}, 0, skipped=skipped)
    judged = Judged(np.array(list(found)), np.array(list(found.values())))
    metrics, chance = metrics_of(judged, labelled, judged.files, {})
    counts = confusion(judged, labelled).tolist()
    names = model.classes
    table = [dict(zip(["truth", *names], [name, *row], strict=True)) for name, row in zip(names, counts, strict=True)]
    return Outcome(metrics, len(found), chance=chance, skipped=skipped, tables={"confusion": table})
