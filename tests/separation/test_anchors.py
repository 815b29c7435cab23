"""Anchor mining against a slow loop, its rule for ties, and where segments may lie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.errors import UsageError
from avssl.separation.anchors import cut_segments, mine_anchors, random_anchors


def slow_first(curve: np.ndarray, half: int) -> int:
    """The definition, frame by frame in float64."""
    frames = len(curve)
    areas = [sum(float(curve[min(max(t + k, 0), frames - 1)]) for k in range(-half, half + 1)) for t in range(frames)]
    best = next(t for t, area in enumerate(areas) if area >= max(areas) - 1e-12)
    return min(max(best, half), frames - 1 - half)


def event(begin: int, end: int, frames: int = 1001) -> torch.Tensor:
    curve = torch.full((1, frames), 0.01)
    curve[:, begin:end] = 0.9
    return curve


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 16), min_size=12, max_size=40), st.integers(1, 5))
def test_first_is_the_earliest_largest_area(levels, half):
    curve = np.array(levels, dtype=np.float32) / 16  # coarse, so that ties are common
    got = mine_anchors(torch.from_numpy(curve)[None], 2 * half, ties="first")
    assert int(got) == slow_first(curve, half)


def test_ties_as_the_published_code_and_in_the_centre():
    # One event of 0.32 s: the published rule gives 2.79 to 4.79 s and cuts its last frame, ours puts it in the middle.
    curve = event(448, 480)
    assert int(mine_anchors(curve, ties="first")) - 100 == 279
    assert int(mine_anchors(curve)) == (448 + 479) // 2


def test_ties_are_exact_however_the_probabilities_round():
    probability = torch.rand(50, 1, generator=torch.Generator().manual_seed(0))
    curves = torch.where(event(448, 480) > 0.5, probability, 0.1 * probability)
    assert (mine_anchors(curves, ties="first") == 379).all()


@pytest.mark.parametrize(("begin", "end", "expected"), [(0, 20, 100), (990, 1001, 900), (300, 700, 499)])
def test_segments_stay_inside_the_clip(begin, end, expected):
    assert int(mine_anchors(event(begin, end))) == expected


def test_the_centre_is_that_of_the_first_best_run():
    curve = torch.zeros(1, 1001)
    curve[:, 200:210] = curve[:, 800:810] = 1
    assert int(mine_anchors(curve)) == 204


def test_batches_are_mined_clip_by_clip():
    curves = torch.rand(7, 300, generator=torch.Generator().manual_seed(0))
    for ties in ("first", "centre"):
        alone = torch.cat([mine_anchors(curve[None], 50, ties=ties) for curve in curves])
        assert torch.equal(mine_anchors(curves, 50, ties=ties), alone)


def test_random_anchors_reach_every_place_alike():
    centres = random_anchors(20000, 301, 200, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(centres, minlength=301)
    assert counts[:100].sum() == counts[201:].sum() == 0
    expected = 20000 / 101
    assert ((counts[100:201] - expected).square() / expected).sum() < 170  # chi square, 100 degrees of freedom


def test_cut_segments():
    waveform = torch.arange(2 * 1000.0).view(2, 1000)
    segments = cut_segments(waveform, torch.tensor([20, 80]), hop=10, segment_frames=40)
    assert torch.equal(segments, torch.stack([waveform[0, :400], waveform[1, 600:]]))
    with pytest.raises(UsageError, match="do not fit"):
        cut_segments(waveform, torch.tensor([20, 81]), hop=10, segment_frames=40)


def test_refuses_clips_and_segments_without_a_centre():
    with pytest.raises(UsageError, match="holds no segment"):
        mine_anchors(torch.rand(1, 200))
    with pytest.raises(UsageError, match="even"):
        random_anchors(1, 300, 31)
