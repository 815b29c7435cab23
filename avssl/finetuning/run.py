"""`avssl-finetune` from labelled files to a model folder: features, split, heads or training, and what came of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import avssl
from avssl import config as configuration
from avssl.environment import environment
from avssl.errors import ConfigError, UsageError
from avssl.evaluation.results import model_facts
from avssl.finetuning import solve, towers
from avssl.finetuning.classifier import Classifier
from avssl.finetuning.config import FinetuneConfig
from avssl.finetuning.features import Windows, pooled_windows
from avssl.finetuning.judged import confusion, metrics_of
from avssl.finetuning.report import card_of, write_report
from avssl.finetuning.split import Labelled, Split, cut, read_labelled
from avssl.finetuning.training import Progress
from avssl.models.av_model import AVModel
from avssl.models.classifier_config import Modality
from avssl.models.folder import CONFIG, save_model

FEATURES = "features.npz"


def finetune(config: FinetuneConfig, device: str, progress: Progress) -> dict[str, Any]:
    """Write the model folder `config.out` with results.json and report.html; returns the content of results.json.

    Raises UsageError if the folder holds a model already, ConfigError where data do not allow what is asked.
    """
    out, started_s = Path(config.out), time.monotonic()
    if (out / CONFIG).exists() and not config.overwrite:
        raise UsageError(f"{out}: holds a model already; name another folder, or add --overwrite true")
    labelled = read_labelled(config.data, config.root, config.group)
    model = avssl.load(config.model, device=device, kind="two_tower")
    if isinstance(model, Classifier) and model.net.adapters:
        raise ConfigError(
            f"model is {config.model}, a classifier with adapters; start from the model that it was made of"
        )
    modalities = _had(model, config.modality)
    with progress("features", len(labelled.paths)) as advance:
        windows, failed = pooled_windows(
            model,
            config.model,
            labelled.paths,
            modalities,
            Path(config.features) if config.features else out / FEATURES,
            window_s=config.window_s,
            hop_s=config.hop_s,
            overwrite=config.overwrite,
            advance=advance,
        )
    chosen = _chosen(windows, modalities, config.modality)
    windows, causes = _usable(windows, chosen)
    skipped = {str(labelled.paths[number]): cause for number, cause in {**causes, **failed}.items()}
    labelled, windows = _without(labelled, windows, [*causes, *failed])
    split = _split(labelled, config)
    if config.solved:
        net, judged, baseline = solve.solve(config, model, chosen, labelled, windows, split)
        trained: dict[str, Any] = {}
    else:
        net, judged, baseline, trained = towers.tune(
            config, model, chosen, labelled, windows, split, device=device, folder=out / "maps", progress=progress
        )
        skipped |= trained.pop("failed")
    metrics, chance = metrics_of(judged, labelled, split.train, baseline)
    results = {
        "name": out.name,
        "judged": split.how,
        "metrics": metrics,
        "chance": chance,
        "counts": {
            "files": len(labelled.paths),
            "judged": len(judged.files),
            "not_judged": len(split.train) - len(judged.files) if split.folds is not None and config.solved else 0,
            "skipped": len(skipped),
            "classes": len(labelled.classes),
        },
        "skipped": [{"item": path, "cause": cause} for path, cause in sorted(skipped.items())],
        "classes": labelled.classes,
        "modalities": chosen,
        "confusion": confusion(judged, labelled).tolist(),
        "training": trained,
        "model": model_facts(config.model),
        "seed": config.seed,
        "wall_s": round(time.monotonic() - started_s, 2),
        "config": configuration.plain(config),
        "environment": environment(device),
    }
    write_report(out, results, judged, labelled)
    kept = {key: value for key, value in model.description.items() if key in ("licence", "source", "source_sha256")}
    about = {key: results[key] for key in ("judged", "metrics", "counts")}
    save_model(out, net, net.config, card=card_of(results), extra=kept | {"finetuned": {"from": config.model, **about}})
    return results


def _had(model: AVModel, wanted: str) -> list[Modality]:
    had: list[Modality] = [name for name in ("video", "audio") if getattr(model.config, name) is not None]
    missing = {"both": {"video", "audio"}, "auto": set()}.get(wanted, {wanted}) - set(had)
    if missing:
        raise ConfigError(f"modality is {wanted!r}, but the model has no {min(missing)} tower")
    return had if wanted in ("auto", "both") else [name for name in had if name == wanted]


def _chosen(windows: Windows, had: list[Modality], wanted: str) -> list[Modality]:
    """The modalities that are used: for `auto` those that at least half of the readable files have."""
    if wanted != "auto":
        return had
    files = np.unique(windows.file)
    share = {name: len(np.unique(windows.file[windows.has[name]])) / len(files) for name in had}
    return [name for name in had if share[name] >= 0.5] or [max(had, key=lambda name: share[name])]


def _usable(windows: Windows, chosen: list[Modality]) -> tuple[Windows, dict[int, str]]:
    """The windows that have any of the chosen modalities, and files that have none of them."""
    some = np.logical_or.reduce([windows.has[name] for name in chosen])
    lost = np.setdiff1d(windows.file, windows.file[some]).tolist()
    kept = Windows({n: windows.vectors[n] for n in chosen}, {n: windows.has[n] for n in chosen}, windows.file)
    return kept.rows(some), dict.fromkeys(lost, f"has no {' and no '.join(chosen)}")


def _without(labelled: Labelled, windows: Windows, lost: list[int]) -> tuple[Labelled, Windows]:
    """The files that are left, numbered anew. Raises ConfigError if a class has none."""
    keep = np.ones(len(labelled.paths), bool)
    keep[lost] = False
    for number, name in enumerate(labelled.classes):
        if not (keep & (labelled.labels == number)).any():
            raise ConfigError(f"class {name!r}: none of its files can be used; repair or remove it")
    windows = windows.of(np.flatnonzero(keep))
    return labelled.kept(keep), windows._replace(file=(np.cumsum(keep) - 1)[windows.file])


def _split(labelled: Labelled, config: FinetuneConfig) -> Split:
    everything = np.arange(len(labelled.paths))
    if labelled.side is not None:
        train, val, test = (labelled.of_side(name) for name in ("train", "val", "test"))
        if config.solved:
            train, judged = np.concatenate([train, val]) if len(test) else train, test if len(test) else val
            if not len(judged):
                raise ConfigError(f"{config.data}: the split has train alone; add test rows, or leave the column away")
            return Split(train, val, judged, None, f"the {'test' if len(test) else 'val'} files of the given split")
        if not len(val):
            folds = cut(labelled.labels[train], [labelled.groups[n] for n in train], config.folds, config.seed)
            train, val = train[folds != 1], train[folds == 1]
        return Split(
            train, val, test if len(test) else val, None,
            "the test files of the given split" if len(test) else "the val files, which also decided when to stop",
        )  # fmt: skip
    folds = cut(labelled.labels, labelled.groups, config.folds, config.seed)
    if not (folds > 0).any():
        raise ConfigError(f"{config.data}: each class has one source, so nothing is left to judge by; add files")
    if config.solved:
        how = f"{config.folds} parts, each judged by what the others teach; sources whole"
        return Split(everything, everything[:0], np.flatnonzero(folds), folds, how)
    held = np.flatnonzero(folds == 1)
    return Split(
        np.flatnonzero(folds != 1), held, held, folds,
        f"one of {config.folds} parts, which also decided when to stop; sources whole",
    )  # fmt: skip
