"""Cross-modal instance discrimination as a softmax over candidates (xID), with hard or soft targets.

With targets that all queries share, the scores [B, J] are never held as a whole: they are made tile by tile, forward
and backward, and what is saved for backward grows with B and not with B x J.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.objectives.candidates import Columns, fill_own
from avssl.objectives.scores import scores


class Contrast(NamedTuple):
    """What a loss says of B queries.

    loss: [B], differentiable.
    own: [B] score (similarity over the temperature) of the own partner, without gradient.
    best_other: [B] highest score of any other candidate, -inf where there is none, without gradient.
    soft_own: [B] mass that the soft targets S give to the own partner; None without soft targets.
    """

    loss: Tensor
    own: Tensor
    best_other: Tensor
    soft_own: Tensor | None = None


class Soft(NamedTuple):
    """Soft targets `S_ij = softmax_j(queries_i . keys_j / temperature + bias_j)` over the visible columns.

    The cross-entropy is taken against `T = (1 - share) onehot + share S` (methods A.5). Never carries gradient. A query
    for which no column is visible keeps the one-hot target.

    queries: [B, D]; keys: [J, D] or [B, J, D]; bias: [J] or [B, J], already over its own temperature; -inf removes.
    temperature: tau_s. share: lambda, in [0, 1].
    own: False takes the own column out of S.
    """

    queries: Tensor
    keys: Tensor
    bias: Tensor | None
    temperature: float
    share: float
    own: bool = True


def xid(
    queries: Tensor,
    targets: Tensor,
    columns: Columns,
    *,
    temperature: float,
    soft: Soft | None = None,
    tile: int | None = None,
) -> Contrast:
    """`- sum_j T_ij log P(t_j | s_i; temperature)` for each query (one direction of methods A.2 and A.5).

    Args:
        queries: [B, D] unit vectors.
        targets: [J, D] shared by all queries, in any floating precision, or [B, J, D] of each query. Gradients flow to
            shared targets that require it; targets that do not (a memory bank) are neither copied nor saved.
        soft: soft targets; None or share 0 is plain xID, bit for bit the same.
        tile: shared targets: at most tile x tile scores exist at a time. Default: what fits the processor's cache, or
            enough to keep a GPU busy. The result depends on it by rounding only.
    """
    if soft is not None and soft.share == 0:
        soft = None
    if targets.dim() == 3:
        return _own_candidates(queries, targets, columns, temperature, soft)
    tile = tile or (4096 if queries.is_cuda else 512)
    loss, own, best_other, soft_own = _Tiled.apply(queries, targets, columns, temperature, soft, tile)
    return Contrast(loss, own, best_other, None if soft is None else soft_own)


def softmax_xid(scores: Tensor, positive: Tensor, spread: Tensor | None = None, share: float = 0.0) -> Tensor:
    """The same from a matrix of scores.

    Args:
        scores: [B, J] similarities over the temperature; -inf takes a candidate out.
        positive: [B] int64, the column of each query's own target.
        spread: [B, J] soft targets S (see `soft_distribution`), which get `share` of the target's mass.
    Returns:
        [B] float32. Random unit vectors (D 128, tau 0.07, J 1025) give 7.72 on average.
    """
    scores = at_least_float32(scores)
    loss = F.cross_entropy(scores, positive, reduction="none")
    if spread is None:
        return loss
    shortfall = scores.gather(1, positive[:, None]) - scores.masked_fill(scores == -torch.inf, 0)
    return loss + share * (spread * shortfall).sum(1)


def soft_distribution(soft: Soft, columns: Columns) -> Tensor:
    """S as a matrix [B, J]; rows without a visible column are zero."""
    logits = scores(at_least_float32(soft.queries.detach()), at_least_float32(soft.keys.detach()), soft.temperature)
    if soft.bias is not None:
        logits = logits + soft.bias.detach()
    hidden = columns.hidden(0, logits.shape[1])
    if hidden is not None:
        logits = logits.masked_fill(hidden, -torch.inf)
    if not soft.own:
        logits = logits.scatter(1, columns.positive[:, None], -torch.inf)
    return logits.softmax(1).masked_fill((logits == -torch.inf).all(1, keepdim=True), 0)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def _own_candidates(
    queries: Tensor, targets: Tensor, columns: Columns, temperature: float, soft: Soft | None
) -> Contrast:
    """Candidates [B, J, D] that were gathered for each query: as many scores as they need are no burden."""
    matrix = scores(at_least_float32(queries), at_least_float32(targets), temperature)
    hidden = columns.hidden(0, matrix.shape[1])
    if hidden is not None:
        matrix = matrix.masked_fill(hidden, -torch.inf)
    detached = matrix.detach()
    own = detached.gather(1, columns.positive[:, None]).squeeze(1)
    best_other = detached.scatter(1, columns.positive[:, None], -torch.inf).amax(1)
    if soft is None:
        return Contrast(softmax_xid(matrix, columns.positive), own, best_other)
    spread = soft_distribution(soft, columns)
    loss = softmax_xid(matrix, columns.positive, spread, soft.share)
    return Contrast(loss, own, best_other, spread.gather(1, columns.positive[:, None]).squeeze(1))


class _Tiled(torch.autograd.Function):
    """Shared targets, tile by tile.

    Forward keeps a running softmax average of the targets, which gives the loss and its gradient to the queries in one
    pass: `dL/ds_i = (sum_j P_ij t_j - sum_j T_ij t_j) / tau`. Backward makes the scores again only if the targets
    require gradient: `dL/dt_j = sum_i (P_ij - T_ij) s_i / tau`. The own column is left out of the tiles and handled by
    itself, so that a query always has one finite score.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, targets: Tensor, columns: Columns, temperature: float, soft: Soft | None, tile: int
    ) -> tuple[Tensor, ...]:
        with torch.autocast(queries.device.type, enabled=False):
            contrast, pull, log_mass, soft_log_mass = _forward(queries, targets, columns, temperature, soft, tile)
        kept: list[Tensor | None] = [pull]
        if ctx.needs_input_grad[1]:
            kept += [queries, targets, log_mass, soft_log_mass, *columns, *_tensors(soft)]
        ctx.save_for_backward(*kept)
        ctx.temperature, ctx.tile = temperature, tile
        ctx.soft = None if soft is None else soft[3:]
        ctx.mark_non_differentiable(*contrast[1:])
        return contrast

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        pull, *kept = ctx.saved_tensors
        to_queries = to_targets = None
        with torch.autocast(gradient.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                to_queries = pull * gradient[:, None]
            if ctx.needs_input_grad[1]:
                queries, targets, log_mass, soft_log_mass, *rest = kept
                soft = None if ctx.soft is None else Soft(*rest[4:], *ctx.soft)
                settings = (Columns(*rest[:4]), ctx.temperature, soft, ctx.tile)
                to_targets = _to_targets(gradient, queries, targets, log_mass, soft_log_mass, *settings)
        return to_queries, to_targets, None, None, None, None


def _forward(
    queries: Tensor, targets: Tensor, columns: Columns, temperature: float, soft: Soft | None, tile: int
) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
    """The parts of a `Contrast`, dloss/dqueries [B, D], and the logsumexps [B] of the scores and of the soft logits."""
    scaled = at_least_float32(queries) / temperature
    own_target = targets[columns.positive].to(scaled.dtype)
    own = (scaled * own_target).sum(1)
    logits = None if soft is None else _SoftLogits(soft, columns, scaled.dtype)
    best_other, soft_log_mass = torch.full_like(own, -torch.inf), torch.full_like(own, -torch.inf)
    log_mass, target, mean = torch.empty_like(own), own_target.clone(), torch.empty_like(scaled)
    for rows, spans in _tiles(len(queries), len(targets), tile):
        some = columns.of(rows)
        posterior = _Average(own[rows], own_target[rows])
        spread = None if logits is None else _Average(logits.own[rows], own_target[rows])
        for span in spans:
            values = targets[span].to(scaled.dtype)
            highest = posterior.add(_hide(scaled[rows] @ values.T, some, span, -torch.inf), values)
            torch.maximum(best_other[rows], highest, out=best_other[rows])
            if logits is not None and spread is not None:
                spread.add(_hide(logits.tile(rows, span), some, span, -torch.inf), values)
        log_mass[rows], mean[rows] = posterior.log_mass(), posterior.mean()
        if soft is not None and spread is not None:
            soft_log_mass[rows] = spread.log_mass()
            share = soft.share * (soft_log_mass[rows] != -torch.inf)
            target[rows] = own_target[rows].lerp(spread.mean(), share.to(scaled.dtype)[:, None])
    loss = log_mass - (scaled * target).sum(1)
    soft_own = torch.zeros_like(own) if logits is None else _mass(logits.own, soft_log_mass)
    return (loss, own, best_other, soft_own), (mean - target) / temperature, log_mass, soft_log_mass


def _to_targets(
    gradient: Tensor,
    queries: Tensor,
    targets: Tensor,
    log_mass: Tensor,
    soft_log_mass: Tensor,
    columns: Columns,
    temperature: float,
    soft: Soft | None,
    tile: int,
) -> Tensor:
    """The gradient [J, D] to the targets, from the gradient [B] to the losses."""
    scaled = at_least_float32(queries) / temperature
    pushed = scaled * gradient[:, None]
    own = (scaled * targets[columns.positive]).sum(1)
    own_residual = (own - log_mass).exp() - 1
    logits = None
    if soft is not None:
        logits = _SoftLogits(soft, columns, scaled.dtype)
        share = soft.share * (soft_log_mass != -torch.inf).to(scaled.dtype)
        own_residual += share - share * _mass(logits.own, soft_log_mass)
        soft_log_mass = torch.where(share > 0, soft_log_mass - share.log(), torch.inf)  # tiles of S times their share
    result = torch.zeros_like(targets, dtype=scaled.dtype)
    for rows, spans in _tiles(len(queries), len(targets), tile):
        some = columns.of(rows)
        for span in spans:
            part = torch.addmm(log_mass[rows, None], scaled[rows], targets[span].to(scaled.dtype).T, beta=-1).exp_()
            if logits is not None:
                part -= logits.tile(rows, span).sub_(soft_log_mass[rows, None]).exp_()
            result[span].addmm_(_hide(part, some, span, 0).T, pushed[rows])
    return result.index_add_(0, columns.positive, pushed * own_residual[:, None])


class _Average:
    """Softmax-weighted mean of vectors, added up tile by tile with a running maximum; starts with one candidate."""

    def __init__(self, score: Tensor, value: Tensor):
        """score: [b], -inf for no candidate; value: [b, D]."""
        self.peak = score.clamp(min=torch.finfo(score.dtype).min)  # because -inf - -inf is NaN
        self.mass = (score != -torch.inf).to(score.dtype)
        self.total = value * self.mass[:, None]

    def add(self, tile: Tensor, values: Tensor) -> Tensor:
        """tile: [b, W] scores, overwritten; values: [W, D]. Returns the highest score [b] of the tile."""
        highest = tile.amax(1)
        peak = torch.maximum(self.peak, highest)
        shrink = (self.peak - peak).exp_()
        weights = tile.sub_(peak[:, None]).exp_()
        self.mass = torch.addcmul(weights.sum(1), self.mass, shrink)
        self.total.mul_(shrink[:, None]).addmm_(weights, values)
        self.peak = peak
        return highest

    def log_mass(self) -> Tensor:
        """The logsumexp [b] of all scores, -inf where there was none."""
        return self.peak + self.mass.log()

    def mean(self) -> Tensor:
        return self.total / self.mass.clamp(min=torch.finfo(self.mass.dtype).tiny)[:, None]


class _SoftLogits:
    """The logits of soft targets, tile by tile; `own` [B] are those of the own columns."""

    def __init__(self, soft: Soft, columns: Columns, dtype: torch.dtype):
        self.queries = soft.queries.detach().to(dtype) / soft.temperature
        self.keys, self.dtype = soft.keys.detach(), dtype
        self.bias = None if soft.bias is None else soft.bias.detach().to(dtype)
        own = (self.queries * self.keys[columns.positive]).sum(1)
        if self.bias is not None:
            bias = self.bias.expand(len(own), -1)
            own = own + bias.gather(1, columns.positive[:, None]).squeeze(1)
        self.own = own if soft.own else torch.full_like(own, -torch.inf)

    def tile(self, rows: slice, span: slice) -> Tensor:
        keys = self.keys[span].to(self.dtype)
        if self.bias is None:
            return self.queries[rows] @ keys.T
        bias = self.bias[span] if self.bias.dim() == 1 else self.bias[rows, span]
        return torch.addmm(bias, self.queries[rows], keys.T)


def _tiles(queries: int, candidates: int, tile: int) -> Iterator[tuple[slice, list[slice]]]:
    """Blocks of queries, each with blocks of columns; fewer queries than `tile` leave room for more columns."""
    height = max(1, min(queries, tile))
    width = max(1, tile * tile // height)
    spans = [slice(start, min(start + width, candidates)) for start in range(0, candidates, width)]
    for start in range(0, queries, height):
        yield slice(start, start + height), spans


def _hide(part: Tensor, columns: Columns, span: slice, value: float) -> Tensor:
    """Write `value` in place where a candidate is taken out or is the own one."""
    hidden = columns.hidden(span.start, span.stop)
    if hidden is not None:
        part.masked_fill_(hidden, value)
    return fill_own(part, columns.positive - span.start, value)


def _mass(logit: Tensor, log_mass: Tensor) -> Tensor:
    """The softmax of a logit, 0 where there is none at all."""
    return torch.where(log_mass == -torch.inf, 0, (logit - log_mass).exp())


def _tensors(soft: Soft | None) -> list[Tensor | None]:
    return [] if soft is None else [soft.queries, soft.keys, soft.bias]
