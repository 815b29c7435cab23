"""A classifier whose towers, adapters or moment heads are trained, starting from the heads solved on frozen features.

Where whole stages stay as they are, what they give is computed once (`kept_maps`); otherwise clips are decoded anew in
each epoch, and changed at random.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avssl.errors import ConfigError, UsageError
from avssl.finetuning.clips import clip_inputs
from avssl.finetuning.config import FinetuneConfig
from avssl.finetuning.decoded import DecodedClips
from avssl.finetuning.features import Windows
from avssl.finetuning.judged import Judged
from avssl.finetuning.kept_maps import KeptMaps, LaterStages
from avssl.finetuning.solve import classifier_of, judged, put_heads
from avssl.finetuning.split import Labelled, Split
from avssl.finetuning.training import History, Learnable, Progress, Source, judge, train
from avssl.finetuning.training_config import ClipTraining
from avssl.models.av_model import AVModel
from avssl.models.classifier import ClassifierNet
from avssl.models.classifier_config import Modality


def tune(
    config: FinetuneConfig,
    model: AVModel,
    modalities: list[Modality],
    labelled: Labelled,
    windows: Windows,
    split: Split,
    *,
    device: str,
    folder: Path,
    progress: Progress,
) -> tuple[ClassifierNet, Judged, dict[str, Judged], dict[str, Any]]:
    """As `solve`, and the course of the training. folder: for maps while they are needed."""
    for modality in modalities:
        tower = model.model.video_tower if modality == "video" else model.model.audio_tower
        if tower is not None and not tower.staged and config.train != "full":
            raise ConfigError(f"the {modality} tower's stages cannot be run one by one; set train to full")
    net = classifier_of(config, model, modalities, labelled.classes)
    put_heads(net, config.head, config.strength, labelled, windows.of(split.train))
    fit = config.fit if config.train != "heads" else dataclasses.replace(config.fit, batch_norm="eval")
    inputs = clip_inputs(net.config.backbone, modalities, fit)
    decoded = DecodedClips(labelled.paths, inputs, fit, seed=config.seed, device=device)
    files = sorted({*split.train.tolist(), *split.val.tolist(), *split.judged.tolist()})
    after = last_frozen(net, config)
    if after is None:
        history, chances = _course(config, fit, net, net, decoded, labelled, split, progress)
    else:
        with progress("maps of frozen stages", len(files)) as advance:
            kept = KeptMaps(net, after, decoded, files, fit, folder, seed=config.seed, advance=advance)
        with kept:
            history, chances = _course(config, fit, net, LaterStages(net, after), kept, labelled, split, progress)
    if len(chances.files) == 0:
        raise UsageError("none of the files to judge by could be read as clips")
    baselines = {
        "nearest_mean": judged("cosine", config.strength, labelled, windows, split.train, chances.files),
        "frozen": judged("linear", config.strength, labelled, windows, split.train, chances.files),
    }
    lost = {str(labelled.paths[number]): cause for number, cause in decoded.failed.items()}
    return net, chances, baselines, {"failed": lost, **dataclasses.asdict(history)}


def last_frozen(net: ClassifierNet, config: FinetuneConfig) -> dict[str, str] | None:
    """Of each modality the last stage before what is trained; None if the first stage is trained already."""
    if config.train == "full" or config.adapter_rank:
        return None
    behind = -2 if config.train == "heads" else -3  # the last stage pools
    return {modality: net.tower(modality).stage_names[behind] for modality in net.config.modalities}


def _course(
    config: FinetuneConfig,
    fit: ClipTraining,
    net: ClassifierNet,
    network: nn.Module,
    source: Source,
    labelled: Labelled,
    split: Split,
    progress: Progress,
) -> tuple[History, Judged]:
    """Train, and judge the files that are to be judged."""
    trained: list[nn.Module] = []
    if config.train == "full":
        trained = [net.tower(modality) for modality in net.config.modalities]
    elif config.train == "partial":
        for modality in net.config.modalities:
            tower = net.tower(modality)
            trained += [tower.get_submodule(name) for name in tower.stage_names[-2:]]
    with progress("training", fit.warmup_epochs + fit.epochs) as advance:
        history = train(
            Learnable(network, [net.heads, net.adapters], trained, net.backbone),
            source,
            labelled.labels.tolist(),
            split.train.tolist(),
            fit,
            validation=split.val.tolist(),
            classes=len(labelled.classes),
            seed=config.seed,
            advance=advance,
        )
    found = judge(network, source, split.judged.tolist())
    files = np.array(sorted(found), int)
    chances = torch.stack([found[file].mean(0) for file in files]).double().numpy() if len(files) else np.zeros((0, 1))
    return history, Judged(files, chances)
