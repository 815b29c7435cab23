"""What luck alone can reach."""

from __future__ import annotations

import numpy as np


def luck(probabilities: np.ndarray, share: float = 0.95) -> float:
    """The share of hits that independent trials of these probabilities [N] stay at or below in `share` of cases."""
    hits = np.ones(1)  # hits[h] = probability of h hits among the trials so far
    for p in probabilities:
        hits = np.append(hits * (1.0 - p), 0.0) + np.append(0.0, hits * p)
    return float(np.argmax(np.cumsum(hits) >= share - 1e-9) / len(probabilities))
