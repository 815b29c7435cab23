"""SCAN's objective: neighbours fall into the same cluster, and the clusters are used alike.

Van Gansbeke et al., "SCAN: Learning to Classify Images without Labels", ECCV 2020 (arXiv 2005.12320).
"""

from __future__ import annotations

import torch
from torch import Tensor


def scan_loss(logits: Tensor, neighbours: Tensor, entropy_weight: float) -> Tensor:
    """The loss of each head, [...].

        L = -mean_i log <p_i, q_i> - entropy_weight H(mean_i p_i)

    logits: [..., B, C] of samples; neighbours: [..., B, C] of one neighbour each; p and q are their softmax. With
    confident, equally used clusters L is -entropy_weight log C; with everything in one cluster it is 0.
    """
    log_p, log_q = logits.float().log_softmax(-1), neighbours.float().log_softmax(-1)
    agreement = torch.logsumexp(log_p + log_q, -1).mean(-1)
    used = log_p.exp().mean(-2)
    entropy = -torch.xlogy(used, used).sum(-1)
    return -agreement - entropy_weight * entropy
