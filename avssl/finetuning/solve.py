"""A classifier of solved heads: each part of the files judged by what the others teach, then a head of all of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avssl.finetuning.config import FinetuneConfig
from avssl.finetuning.features import Windows
from avssl.finetuning.heads import (
    class_means,
    file_means,
    fit_heads,
    logits,
    nearest_mean_scores,
    softmax,
)
from avssl.finetuning.judged import Judged
from avssl.finetuning.split import Labelled, Split
from avssl.models.av_model import AVModel
from avssl.models.classifier import ClassifierNet
from avssl.models.classifier_config import ClassifierConfig, Modality
from avssl.models.heads import CosineHead, LinearHead
from avssl.models.moment_head import MomentHead

_COSINE_SCALES = (5.0, 10.0, 20.0, 40.0, 80.0)


def solve(
    config: FinetuneConfig,
    model: AVModel,
    modalities: list[Modality],
    labelled: Labelled,
    windows: Windows,
    split: Split,
) -> tuple[ClassifierNet, Judged, dict[str, Judged]]:
    """The network, what it says of files that it has not learned from, and what the nearest class mean says."""
    if split.folds is None:
        rounds = [(split.train, split.judged)]
    else:
        rounds = [
            (np.flatnonzero(split.folds != fold), np.flatnonzero(split.folds == fold))
            for fold in np.unique(split.folds[split.folds > 0])
        ]
    own, means = [], []
    for learn, judge in rounds:
        own.append(judged(config.head, config.strength, labelled, windows, learn, judge))
        means.append(judged("cosine", config.strength, labelled, windows, learn, judge))
    net = classifier_of(config, model, modalities, labelled.classes)
    put_heads(net, config.head, config.strength, labelled, windows.of(split.train))
    return net, _together(own), {"nearest_mean": _together(means)}


def judged(
    head: str, strength: float, labelled: Labelled, windows: Windows, learn: np.ndarray, judge: np.ndarray
) -> Judged:
    """What a head learned from the files `learn` says of the files `judge`."""
    learned, asked, classes = windows.of(learn), windows.of(judge), len(labelled.classes)
    if head == "cosine":
        means = class_means(learned, labelled.labels, classes)
        scores = cosine_scale(means, learned, labelled.labels) * nearest_mean_scores(means, asked)
    else:
        scores = logits(fit_heads(learned, labelled.labels, classes, strength), asked)
    return Judged(judge, file_means(softmax(scores), asked, len(labelled.paths))[judge])


def cosine_scale(means: dict[str, np.ndarray], windows: Windows, labels: np.ndarray) -> float:
    """The factor on cosines that makes the files' classes likeliest."""
    scores, truth = nearest_mean_scores(means, windows), labels[windows.file]

    def loss(scale: float) -> float:
        return -float(np.log(np.maximum(softmax(scale * scores)[np.arange(len(truth)), truth], 1e-12)).mean())

    return min(_COSINE_SCALES, key=loss)


def classifier_of(
    config: FinetuneConfig, model: AVModel, modalities: list[Modality], classes: list[str]
) -> ClassifierNet:
    """A classifier around the model's weights, its heads still to be learned."""
    settings = ClassifierConfig(
        backbone=model.config.without_files(),
        classes=classes,
        modalities=modalities,
        head=config.head,
        unit=True,
        dropout=config.fit.dropout,
        adapter_rank=config.adapter_rank,
        moment=config.moment,
        window_s=config.window_s,
        hop_s=config.hop_s,
    )
    torch.manual_seed(config.seed)
    net = ClassifierNet(settings)
    net.backbone.load_state_dict(model.model.state_dict())
    return net.to(model.device).eval()


@torch.no_grad()
def put_heads(net: ClassifierNet, head: str, strength: float, labelled: Labelled, windows: Windows) -> None:
    """Give the network the heads that are solved from these windows. A moment head starts as its linear part."""
    classes = len(labelled.classes)
    if head == "cosine":
        means = class_means(windows, labelled.labels, classes)
        scale = cosine_scale(means, windows, labelled.labels)
        for name, vectors in means.items():
            part = net.heads[name]
            assert isinstance(part, CosineHead)
            part.put(_tensor(vectors), scale)
        return
    for name, solved in fit_heads(windows, labelled.labels, classes, strength).items():
        part = net.heads[name]
        assert isinstance(part, LinearHead | MomentHead)
        part.put(_tensor(solved.weight), _tensor(solved.bias))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def _together(parts: list[Judged]) -> Judged:
    files = np.concatenate([part.files for part in parts])
    order = np.argsort(files)
    return Judged(files[order], np.concatenate([part.chances for part in parts])[order])
