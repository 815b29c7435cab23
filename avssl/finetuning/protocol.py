"""The protocols `finetune` and `linear_stages` of `avssl-eval`: trained on the clips of each fold, judged by its tests.

A finished fold is kept in `out`/folds/NAME.json: a run that was interrupted goes on with the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import avssl
from avssl import config as configuration
from avssl import files
from avssl.errors import ConfigError
from avssl.evaluation.datasets import Fold, LabelledItem, read_folds
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.results import model_facts, refuse_incomplete
from avssl.finetuning.clips import clip_inputs
from avssl.finetuning.decoded import DecodedClips
from avssl.finetuning.protocol_config import FinetuneProtocol, LinearStages
from avssl.finetuning.stage_probes import StageProbes
from avssl.finetuning.training import Learnable, judge, train
from avssl.models.classifier import ClassifierNet
from avssl.models.classifier_config import ClassifierConfig


def run(config: EvalConfig, out: Path, advance: Callable[[int], None]) -> Outcome:
    """Train and test on each fold. With more missing files than allowed nothing is trained, and there is no score."""
    if config.model is None:
        raise ConfigError("model: missing; name the model that is tuned")
    folds = read_folds(config.protocol.data, config.seed)
    items = list({item.path: item for fold in folds for item in (*fold.train, *fold.test)}.values())
    classes = sorted({label for item in items for label in item.labels})
    if len(classes) < 2 or any(len(item.labels) != 1 for item in items):
        raise ConfigError(f"protocol.data: {config.protocol.data.root} needs 2 or more classes, and one a file")
    causes = {item.path: "no such file" for item in items if not item.path.is_file()}
    _refuse(config, items, causes)
    key = _key(config, items)
    rows, chances = [], []
    for fold in folds:
        kept = out / "folds" / f"{fold.name}.json"
        found = _read_kept(kept, key)
        if found is None:
            found = {"key": key, **_measured(config, fold, classes, causes, advance)}
            files.write_json(kept, found)
        causes |= {Path(path): cause for path, cause in found["failed"].items()}
        rows.append({"fold": fold.name, **found["metrics"]})
        chances.append(found["chance"])
    return _outcome(items, causes, rows, dict.fromkeys(rows[0].keys() - {"fold"}, float(np.mean(chances))))


def _measured(
    config: EvalConfig, fold: Fold, classes: list[str], causes: dict[Path, str], advance: Callable[[int], None]
) -> dict[str, Any]:
    """Metrics of one fold, the share of its tests that have the most frequent class, and files that failed."""
    protocol: FinetuneProtocol | LinearStages = config.protocol
    items = [item for item in (*fold.train, *fold.test) if item.path not in causes]
    learned = sum(item.path not in causes for item in fold.train)
    learn, ask = list(range(learned)), list(range(learned, len(items)))
    if not learn or not ask:
        raise ConfigError(f"protocol.data: nothing is left of fold {fold.name} without the items that are missing")
    labels = [classes.index(item.labels[0]) for item in items]
    assert config.model is not None
    torch.manual_seed(config.seed)
    model = avssl.load(config.model, device=config.device, kind="two_tower")
    modality = getattr(protocol, "modality", "video")
    if getattr(model.config, modality) is None:
        raise ConfigError(f"protocol.modality is {modality!r}, but the model has no {modality} tower")
    inputs = clip_inputs(model.config, [modality], protocol.fit)
    clips = DecodedClips([item.path for item in items], inputs, protocol.fit, seed=config.seed, device=config.device)
    if isinstance(protocol, LinearStages):
        assert inputs.picture is not None
        side = inputs.picture.size_px
        example = torch.zeros(1, 3, inputs.picture.frames, side, side, device=model.device)
        probes = StageProbes(model.model.video_tower, protocol.stages, len(classes), example).to(model.device)
        learnable, names = Learnable(probes, [probes.probes]), [f"{stage}_" for stage in protocol.stages]
    else:
        settings = ClassifierConfig(
            model.config.without_files(), classes, modalities=[protocol.modality], dropout=protocol.fit.dropout
        )
        net = ClassifierNet(settings)
        net.backbone.load_state_dict(model.model.state_dict())
        net.to(model.device)
        learnable, names = Learnable(net, [net.heads], [net.tower(modality)], net.backbone), [""]

    def after_epoch(n: int) -> None:
        """Not to train on for hours towards a score that will be refused."""
        lost = {items[file].path: cause for file, cause in clips.failed.items()}
        _refuse(config, [*items, *causes], causes | lost)
        advance(n)

    train(
        learnable, clips, labels, learn, protocol.fit,
        classes=len(classes), seed=config.seed, advance=after_epoch,
    )  # fmt: skip
    answers = judge(learnable.network, clips, ask)
    frequent = np.bincount([labels[file] for file in learn]).argmax()
    return {
        "metrics": _accuracies(answers, labels, names),
        "chance": float(np.mean([labels[file] == frequent for file in ask])),
        "failed": {str(items[file].path): cause for file, cause in clips.failed.items()},
    }


def _accuracies(answers: dict[int, Tensor], labels: list[int], names: list[str]) -> dict[str, float]:
    """`accuracy` of files, by the mean over their clips, and `clip_accuracy`, for each classifier by name."""
    if not answers:
        raise ConfigError("protocol.data: none of the test files could be read")
    metrics = {}
    for place, name in enumerate(names):
        of_files, of_clips = [], []
        for file, chances in answers.items():
            own = chances[:, place] if chances.dim() == 3 else chances
            of_files.append(float(own.mean(0).argmax() == labels[file]))
            of_clips.append((own.argmax(1) == labels[file]).double().mean().item())
        metrics[f"{name}accuracy"] = float(np.mean(of_files))
        metrics[f"{name}clip_accuracy"] = float(np.mean(of_clips))
    return metrics


def _refuse(config: EvalConfig, items: Sequence[object], causes: dict[Path, str]) -> None:
    skipped = [{"item": str(path), "cause": cause} for path, cause in causes.items()]
    refuse_incomplete(config, skipped, len(items) - len(skipped))


def _outcome(
    items: list[LabelledItem], causes: dict[Path, str], rows: list[dict[str, Any]], chance: dict[str, float]
) -> Outcome:
    """Means over folds, standard deviations beside them, and the better stage of several."""
    metrics: dict[str, float] = {}
    for key in rows[0] if rows else ():
        if key != "fold":
            metrics[key] = float(np.mean([row[key] for row in rows]))
            metrics[f"{key}_std"] = float(np.std([row[key] for row in rows]))
    stages = [key for key in metrics if key.endswith("_accuracy") and not key.endswith("clip_accuracy")]
    if stages:
        metrics["best_stage_accuracy"] = max(metrics[key] for key in stages)
    return Outcome(
        metrics,
        items=len(items) - len(causes),
        chance=chance,
        skipped=[{"item": str(path), "cause": cause} for path, cause in causes.items()],
        tables={"folds": rows},
    )


def _key(config: EvalConfig, items: list[LabelledItem]) -> str:
    """Names all that a fold's result depends on."""
    facts = {
        "protocol": configuration.plain(config.protocol),
        "seed": config.seed,
        "model": model_facts(config.model or ""),
        "items": [[str(item.path), *item.labels] for item in items],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read_kept(path: Path, key: str) -> dict[str, Any] | None:
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None
