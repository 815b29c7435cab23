"""Random numbers that depend on what is drawn for, never on who draws: rank, worker and order do not matter."""

from __future__ import annotations

import numpy as np


def sample_generator(seed: int, epoch: int, row: int, draw: int = 0) -> np.random.Generator:
    """The generator of one sample: a function of (seed, epoch, row) and the repetition `draw` within the epoch."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, row, draw))))


def step_seed(seed: int, step: int) -> int:
    """A 63-bit seed for the draws that belong to a training step (the same on all ranks)."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1))
