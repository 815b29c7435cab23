"""Audio-visual spatial alignment: a prediction of each view must find that view among other views and other videos.

The contrast is within a modality: predicted sound against the sound of the views, predicted pictures against their
pictures. Other views of the same video are the hard (spatial) negatives, views of other videos the easy ones. With
moments of a video in the place of its views it is AVTS. AVC, the first phase, is `avssl.objectives.xid` within the
batch, in both directions. Equations: AVSA (arXiv 2011.01819), methods C.8.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from avssl.objectives.xid import at_least_float32

Candidates = Literal["paper", "released"]
Negatives = Literal["easy+hard", "hard", "easy"]


class Alignment(NamedTuple):
    """For each view [B, K]: loss (differentiable); whether the own view scores higher than all easy negatives, and than
    all other views of its video (both whatever `negatives` the loss has)."""

    loss: Tensor
    beats_easy: Tensor
    beats_hard: Tensor


def alignment(
    queries: Tensor,
    targets: Tensor,
    own: Tensor,
    *,
    temperature: float,
    candidates: Candidates = "paper",
    negatives: Negatives = "easy+hard",
    same: Tensor | None = None,
) -> Alignment:
    """InfoNCE of predictions against features of the same modality, in float32.

    Args:
        queries: [B, K, D] unit vectors, predictions for the K views of B videos.
        targets: [N, K, D] unit vectors, features of the same views of N videos, those of the queries among them.
            Gradients reach both.
        own: [B] int64, which of the N videos each query's is.
        temperature: tau.
        candidates: which views of other videos are easy negatives: all of them (paper, N K candidates in all), or the
            k-th one for a query of view k (released, K + N - 1 candidates).
        negatives: which kinds of negatives the loss has.
        same: [B, N] bool, further videos that are no negatives of a query.
    """
    queries, targets = at_least_float32(queries), at_least_float32(targets)
    batch, views, _ = queries.shape
    hard = torch.einsum("bkd,bjd->bkj", queries, targets[own]) / temperature
    if candidates == "released":
        easy = torch.einsum("bkd,nkd->bkn", queries, targets)
    else:
        easy = torch.einsum("bkd,njd->bknj", queries, targets)
    mine = torch.arange(len(targets), device=own.device) == own[:, None]
    excluded = mine if same is None else mine | same
    easy = (easy / temperature).masked_fill(excluded.view(batch, 1, -1, *[1] * (easy.dim() - 3)), -torch.inf).flatten(2)

    positive = hard.diagonal(dim1=1, dim2=2)
    others = hard.masked_fill(torch.eye(views, dtype=torch.bool, device=hard.device), -torch.inf)
    logits = {"hard": [hard], "easy": [positive[..., None], easy], "easy+hard": [hard, easy]}[negatives]
    loss = torch.cat(logits, -1).logsumexp(-1) - positive
    return Alignment(loss, positive > easy.amax(-1), positive > others.amax(-1))
