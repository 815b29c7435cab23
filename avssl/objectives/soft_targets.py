"""Soft targets of robust cross-modal instance discrimination: which other candidates may be partners too."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from avssl.objectives.weights import pair_scores
from avssl.objectives.xid import Soft

Strategy = Literal["bootstrapping", "swapped", "neighbor", "cycle"]


class Side(NamedTuple):
    """What one modality gives: unit vectors, of which none carries gradient here.

    online: [B, D], the embeddings of the batch. memory: [B, D], the slow targets of the same samples.
    targets: [J, D] shared candidates, or [B, J, D] of each query; in the same columns for both modalities.
    """

    online: Tensor
    memory: Tensor
    targets: Tensor


def soft_targets(
    strategy: Strategy,
    source: Side,
    other: Side,
    *,
    share: float,
    temperature: float,
    agreement_temperature: float,
    query: Literal["online", "memory"],
    own: bool = True,
    agreement: Tensor | None = None,
) -> Soft:
    """S for queries of `source` against the targets of `other` (methods A.5); exchange the two for the other direction.

        bootstrapping   softmax_j( source_i . other_j / tau_s )       the own posterior, sharpened
        swapped         softmax_j( other_i . source_j / tau_s )       the posterior of the other modality's query
        neighbor        softmax_j( source_i . source_j / tau_s )      similarity within the modality
        cycle           softmax_j( other_i . source_j / tau_s + source_j . other_j / tau_t )
                                                                      swapped, but rather j whose own two sides agree

    (The term source_i . other_i / tau_t of the cycle is the same for all j and cancels.)

    Args:
        share: lambda, the mass that S gets in the target. temperature: tau_s. agreement_temperature: tau_t (cycle).
        query: whether the left factors above are online embeddings or memories.
        own: False removes the own column from S (neighbor: at tau_s 0.02 it otherwise keeps nearly all of the mass).
        agreement: [J] or [B, J], the products source_j . other_j, where they are at hand (cycle).
    """
    of_source, of_other = (side.online if query == "online" else side.memory for side in (source, other))
    if strategy == "bootstrapping":
        return Soft(of_source, other.targets, None, temperature, share)
    if strategy == "swapped":
        return Soft(of_other, source.targets, None, temperature, share)
    if strategy == "neighbor":
        return Soft(of_source, source.targets, None, temperature, share, own)
    if agreement is None:
        agreement = pair_scores(source.targets, other.targets)
    return Soft(of_other, source.targets, agreement.detach() / agreement_temperature, temperature, share)
