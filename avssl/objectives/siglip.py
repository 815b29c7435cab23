"""Sigmoid loss for pairs (SigLIP, arXiv 2303.15343): each pair is a question of its own, partners or not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.objectives.candidates import Columns
from avssl.objectives.scores import scores
from avssl.objectives.xid import Contrast, at_least_float32


def siglip(queries: Tensor, targets: Tensor, columns: Columns, *, scale: Tensor, bias: Tensor) -> Contrast:
    """`softplus(-x_own) + sum over others of softplus(x_j)`, with `x = scale * (query . target) + bias`.

    Args:
        queries: [B, D] unit vectors. targets: [J, D] shared or [B, J, D] of each query.
        scale, bias: learnable scalars; the paper starts them at 10 and -10. Scores of the result are x.
    """
    x = scores(at_least_float32(queries), at_least_float32(targets), 1.0) * scale + bias
    hidden = columns.hidden(0, x.shape[1])
    if hidden is not None:
        x = x.masked_fill(hidden, -torch.inf)
    own = x.gather(1, columns.positive[:, None]).squeeze(1)
    others = x.scatter(1, columns.positive[:, None], -torch.inf)
    return Contrast(F.softplus(-own) + F.softplus(others).sum(1), own.detach(), others.detach().amax(1))
