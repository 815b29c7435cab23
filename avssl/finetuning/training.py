"""Training of heads and towers on clips of labelled files, with early stopping, and what the result says of files."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avssl import rng
from avssl.errors import AvsslError
from avssl.finetuning.training_config import ClipTraining

Progress = Callable[[str, int | None], AbstractContextManager[Callable[..., None]]]
"""progress(what, how many) as a context that yields advance(n)."""


class Part(NamedTuple):
    """Inputs of a network, by the names of its arguments, and the number of the file [N] that each is of."""

    inputs: dict[str, Tensor]
    file: Tensor


class Source(Protocol):
    """Where clips come from. failed: causes by file, growing while it is read."""

    failed: dict[int, str]

    def train(self, files: Sequence[int], epoch: int) -> Iterator[Part]:
        """The clips of an epoch, in batches."""

    def test(self, files: Sequence[int]) -> Iterator[Part]:
        """Evenly spread clips, those of a file within one part."""


@dataclass
class Learnable:
    """Networks and what of them is trained: `heads` from the start, `towers` after the warm-up, no other parameters.

    network: inputs -> logits [N, C], or of several classifiers at once [N, H, C]. pretrained: the part whose batch
    normalisation `fit.batch_norm` is about.
    """

    network: nn.Module
    heads: Sequence[nn.Module]
    towers: Sequence[nn.Module] = ()
    pretrained: nn.Module | None = None


@dataclass
class History:
    """Epochs that were trained, those of the warm-up included: the loss of each and, where there are files to validate
    on, the share of them that is right, before the first one too; `best` is the epoch that was kept, 0 the start."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    best: int = 0


def train(
    learnable: Learnable,
    source: Source,
    labels: Sequence[int],
    files: Sequence[int],
    fit: ClipTraining,
    *,
    validation: Sequence[int] = (),
    classes: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> History:
    """Train in place on `files`, numbers into `labels`; with `validation` files the best epoch is kept.

    Raises AvsslError if the loss is not finite.
    """
    network = learnable.network
    device = next(network.parameters()).device
    target = torch.tensor(labels, device=device)
    weight = _class_weights([labels[file] for file in files], classes).to(device) if fit.balance else None
    heads, towers = (
        [parameter for module in modules for parameter in module.parameters()]
        for modules in (learnable.heads, learnable.towers)
    )
    optimizer = torch.optim.Adam([*heads, *towers], lr=fit.lr, weight_decay=fit.weight_decay)
    history, best, best_epoch, kept = History(), (-1.0, -math.inf), 0, None
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    if validation:
        best, kept = _score(judge(network, source, validation), labels), copy.deepcopy(network.state_dict())
        history.accuracy.append(best[0])
    for epoch in range(fit.warmup_epochs + fit.epochs):
        warm = epoch < fit.warmup_epochs
        for group in optimizer.param_groups:
            group["lr"] = fit.lr * fit.drop ** sum(epoch - fit.warmup_epochs >= at for at in fit.drop_at)
        for parameter in heads:
            parameter.requires_grad_(True)
        for parameter in towers:
            parameter.requires_grad_(not warm)
        _training_mode(learnable, fit)
        losses = []
        for step, part in enumerate(source.train(files, epoch)):
            torch.manual_seed(rng.step_seed(seed + epoch, step))  # dropout
            loss = _loss(network(**part.inputs), target[part.file.to(device)], weight)
            if not torch.isfinite(loss):
                raise AvsslError(f"the loss is {loss.item()} in epoch {epoch + 1}; lower fit.lr (now {fit.lr:g})")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        history.loss.append(sum(losses) / max(1, len(losses)))
        advance(1)
        if not validation:
            history.best = epoch + 1
            continue
        score = _score(judge(network, source, validation), labels)
        history.accuracy.append(score[0])
        if score > best:
            best, kept, best_epoch = score, copy.deepcopy(network.state_dict()), epoch + 1
        history.best = best_epoch
        if fit.patience and epoch + 1 - max(best_epoch, fit.warmup_epochs) >= fit.patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    network.eval()
    return history


@torch.no_grad()
def judge(network: nn.Module, source: Source, files: Sequence[int]) -> dict[int, Tensor]:
    """Probabilities of the clips [K, C] (or [K, H, C]) of each file, whose mean judges it; none of failed ones."""
    network.eval()
    found: dict[int, Tensor] = {}
    for part in source.test(files):
        chances = network(**part.inputs).float().softmax(-1).cpu()
        for file in part.file.unique().tolist():
            found[file] = chances[part.file == file]
    return found


def _loss(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    if logits.dim() == 3:  # classifiers that share nothing: each gets the gradient of its own loss
        return sum((F.cross_entropy(one.float(), target, weight) for one in logits.unbind(1)), logits.new_zeros(()))
    return F.cross_entropy(logits.float(), target, weight)


def _score(found: dict[int, Tensor], labels: Sequence[int]) -> tuple[float, float]:
    """Accuracy, and for equal ones minus the loss, over the files that could be read; of several classifiers, means."""
    if not found:
        return 0.0, -math.inf
    hits, losses = [], []
    for file, clips in found.items():
        chances = clips.mean(0)
        hits.append((chances.argmax(-1) == labels[file]).double().mean().item())
        losses.append(-chances[..., labels[file]].clamp(min=1e-12).log().mean().item())
    return sum(hits) / len(hits), -sum(losses) / len(losses)


def _class_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Such that each class that occurs counts the same, 1 on average over files."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return torch.where(counts > 0, len(labels) / (counts.clamp(min=1) * (counts > 0).sum()), 0.0)


def _training_mode(learnable: Learnable, fit: ClipTraining) -> None:
    learnable.network.train()
    if fit.batch_norm == "eval" and learnable.pretrained is not None:
        for module in learnable.pretrained.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
