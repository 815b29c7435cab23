"""The terms of the loss: each query against its candidates in one direction, and against its mined positives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.objectives.candidates import Columns, fill_own
from avssl.objectives.hard_negatives import keep_hardest
from avssl.objectives.nce import nce_several, nce_xid
from avssl.objectives.scores import scores
from avssl.objectives.xid import Contrast, Soft, softmax_xid, xid
from avssl.tasks.xid_config import XIDConfig


def visible_scores(queries: Tensor, targets: Tensor, columns: Columns, temperature: float) -> Tensor:
    """The whole matrix [B, J] of scores, -inf where a candidate is taken out."""
    matrix = scores(queries, targets.float(), temperature)
    hidden = columns.hidden(0, matrix.shape[1])
    return matrix if hidden is None else matrix.masked_fill(hidden, -torch.inf)


def contrast(
    config: XIDConfig,
    queries: Tensor,
    targets: Tensor,
    columns: Columns,
    *,
    soft: Soft | None,
    partition: Tensor | None,
) -> Contrast:
    """Softmax or NCE of queries [B, D] against targets [J, D] or [B, J, D]. partition: Z, for NCE."""
    if config.loss == "softmax" and config.hard_share is None:
        return xid(queries, targets, columns, temperature=config.temperature, soft=soft)
    matrix = visible_scores(queries, targets, columns, config.temperature)
    if partition is not None:
        return judged(nce_xid(matrix, columns.positive, partition), matrix, columns)
    matrix = keep_hardest(matrix, columns.positive, config.hard_share or 1.0)
    return judged(softmax_xid(matrix, columns.positive), matrix, columns)


def judged(loss: Tensor, matrix: Tensor, columns: Columns) -> Contrast:
    """A loss [B] with what its scores [B, J] say of the own partner."""
    matrix = matrix.detach()
    own = matrix.gather(1, columns.positive[:, None]).squeeze(1)
    return Contrast(loss, own, fill_own(matrix.clone(), columns.positive, -torch.inf).amax(1))


def against_positives(
    queries: Tensor, positives: Tensor, negatives: Tensor, *, temperature: float, partition: Tensor | None
) -> Tensor:
    """Several positives [B, P, D] against negatives [B, K, D]: [B], the mean over positives (methods B.5).

    NCE with `partition`; otherwise each positive's softmax against the negatives, the other positives left out.
    """
    pull, push = scores(queries, positives, temperature), scores(queries, negatives, temperature)
    if partition is None:
        return F.softplus(push.logsumexp(1, keepdim=True) - pull).mean(1)
    is_positive = torch.arange(pull.shape[1] + push.shape[1], device=pull.device) < pull.shape[1]
    return nce_several(torch.cat([pull, push], 1), is_positive.expand(len(pull), -1), partition)
