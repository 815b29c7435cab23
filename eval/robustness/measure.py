"""What a trained task is worth: probes, retrieval, and whether weights and soft targets see what is true."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.evaluation.retrieval import retrieval
from avssl.objectives.candidates import Columns
from avssl.objectives.scores import unit
from avssl.objectives.soft_targets import Side, soft_targets
from avssl.objectives.weights import pair_scores
from avssl.objectives.xid import soft_distribution
from avssl.tasks.targets import MODALITIES
from avssl.tasks.xid import XIDTask
from avssl.training.distributed import ProcessGroup
from eval.robustness.clips import FRAMES, Clips, centred
from eval.robustness.worlds import Parts

PLACES = (1, 5, 10)
BINS = 10  # of the weights' histograms
_CHUNK = 256  # clips at a time through the towers
_PROBE_DECAY = 1e-3


@dataclass(frozen=True)
class Embedded:
    """Features [N, F] of the towers and unit embeddings [N, D] of the heads, by modality."""

    features: dict[str, Tensor]
    embeddings: dict[str, Tensor]


def measure(task: XIDTask, parts: Parts) -> dict[str, Any]:
    """Everything about a task, as plain numbers; shares are 0..1. What a task does not have is left out."""
    train, held_out = embed(task, parts.train), embed(task, parts.held_out)
    labels = {"video": (parts.train.label, parts.held_out.label), "audio": (parts.train.heard, parts.held_out.heard)}
    found: dict[str, Any] = {
        f"probe_{name}": probe(train.features[name], labels[name][0], held_out.features[name], labels[name][1])
        for name in MODALITIES
    }
    found |= cross_modal(held_out.embeddings, parts.held_out.label)
    slow = slow_targets(task, train.embeddings)
    if parts.train.mismatched.any():
        found["auroc"] = auroc(-pair_scores(slow["video"], slow["audio"]), parts.train.mismatched)
    if task.config.weights is not None:
        found |= weights(task, slow, parts.train.mismatched)
    if task.config.soft is not None:
        found |= soft_mass(task, train.embeddings, slow, parts.train)
    return found


def embed(task: XIDTask, clips: Clips) -> Embedded:
    """Each clip as the mean over its first and its last second, without augmentation."""
    model, training = task.model, task.training
    assert model.video_head is not None and model.audio_head is not None
    task.eval()
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        for rows in torch.arange(len(clips)).split(_CHUNK):
            looks = []
            for frame in (0, clips.video.shape[1] - FRAMES):
                pixels, sound = centred(clips, rows, frame)
                video, audio = model.video_features(pixels), model.audio_features(sound)
                looks.append((video, audio, unit(model.video_head(video)), unit(model.audio_head(audio))))
            parts.append([torch.stack(pair).mean(0) for pair in zip(*looks, strict=True)])
    task.train(training)
    video, audio, video_embedding, audio_embedding = (torch.cat(chunks) for chunks in zip(*parts, strict=True))
    return Embedded({"video": video, "audio": audio}, {"video": unit(video_embedding), "audio": unit(audio_embedding)})


def probe(train: Tensor, train_labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> float:
    """Held-out accuracy of a multinomial logistic regression on standardised features [N, F]."""
    mean, std = train.mean(0), train.std(0) + 1e-6
    train, held_out = (train - mean) / std, (held_out - mean) / std
    classes = int(max(train_labels.max(), held_out_labels.max())) + 1
    linear = torch.nn.Linear(train.shape[1], classes)
    torch.nn.init.zeros_(linear.weight), torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear(train), train_labels) + _PROBE_DECAY * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return float((linear(held_out).argmax(1) == held_out_labels).float().mean())


def cross_modal(embeddings: dict[str, Tensor], labels: Tensor) -> dict[str, float]:
    """Recall of the own clip at 1, 5, 10, and of any clip of the class at 1, of both directions' mean; with chance."""
    vectors = {name: x.numpy() for name, x in embeddings.items()}
    found = {}
    for kind, groups, places in (("instance", np.arange(len(labels)), PLACES), ("class", labels.numpy(), (1,))):
        ways = [retrieval(vectors[a], vectors[b], groups, groups, places) for a, b in (MODALITIES, MODALITIES[::-1])]
        for k in places:
            found[f"{kind}_at_{k}"] = float(np.mean([way.recall[k] for way in ways]))
            found[f"{kind}_at_{k}_chance"] = ways[0].chance_recall[k]
    return found


def slow_targets(task: XIDTask, embeddings: dict[str, Tensor]) -> dict[str, Tensor]:
    """The targets of all training rows: the banks, or the embeddings themselves where targets come from the batch."""
    if task.config.targets == "bank":
        return {"video": task.video_bank.memory, "audio": task.audio_bank.memory}
    return embeddings


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Probability that a random one of `positive` [N] has a higher score [N] than a random other; ties count half."""
    _, index, counts = torch.unique(scores.double(), return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2)[index]  # mean rank among equals, from 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def weights(task: XIDTask, slow: dict[str, Tensor], mismatched: Tensor) -> dict[str, Any]:
    """The weights that the task gives to all training pairs: means and histograms (shares) of right and wrong ones."""
    if hasattr(task.pair_weights, "by_row"):
        return {}
    given, _ = task.pair_weights(pair_scores(slow["video"], slow["audio"]), ProcessGroup())
    found: dict[str, Any] = {}
    for name, which in (("right", ~mismatched), ("wrong", mismatched)):
        if which.any():
            found[f"weight_{name}"] = float(given[which].mean())
            found[f"weights_{name}"] = (torch.histc(given[which], BINS, 0, 1) / which.sum()).tolist()
    return found


def soft_mass(task: XIDTask, online: dict[str, Tensor], slow: dict[str, Tensor], clips: Clips) -> dict[str, float]:
    """Where the soft targets of all training rows put their mass, of both directions' mean.

    soft_own: on the own partner. soft_class: of the rest, the share on candidates of the class that the query itself
    shows (a picture's candidates are sounds, so their class is the one that is heard); soft_class_right and _wrong:
    the same of the matched and the mismatched pairs alone. soft_class_chance: the share of such candidates among the
    others.
    """
    settings = task.config.soft
    assert settings is not None
    sides = {name: Side(online[name], slow[name], slow[name]) for name in MODALITIES}
    classes = {"video": clips.label, "audio": clips.heard}
    rows = torch.arange(len(clips))
    queries = {"": rows >= 0, "_right": ~clips.mismatched, "_wrong": clips.mismatched}
    found: dict[str, list[float]] = defaultdict(list)
    for source, other in (MODALITIES, MODALITIES[::-1]):
        soft = soft_targets(
            settings.strategy,
            sides[source],
            sides[other],
            share=settings.share,
            temperature=settings.temperature,
            agreement_temperature=settings.agreement_temperature,
            query=settings.query,
            own=settings.neighbor_own or settings.strategy != "neighbor",
        )
        mass = soft_distribution(soft, Columns(rows))
        same = classes[source][:, None] == classes[other][None, :]
        same.fill_diagonal_(False)
        own = mass.diagonal()
        found["soft_own"].append(float(own.mean()))
        on_class = mass.masked_fill(~same, 0).sum(1)
        for which, selected in queries.items():
            if selected.any():
                found[f"soft_class{which}"].append(float(on_class[selected].sum() / (1 - own[selected]).sum()))
        found["soft_class_chance"].append(float(same.sum() / (len(rows) * (len(rows) - 1))))
    return {name: float(np.mean(values)) for name, values in found.items()}
