"""Mining of positives against an exhaustive search of pairs; negatives outside of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tools import random_units

from avssl.objectives.agreement import draw_negatives_outside, mine_positives

N, D, COUNT = 37, 8, 5
COMBINE = {
    "consensus": min,
    "union": max,
    "video": lambda video, audio: video,
    "audio": lambda video, audio: audio,
}


def slow_positives(rows, video, audio, count, mode, absent=()):
    found = []
    for i in rows:
        agreement = {
            j: COMBINE[mode](float(video[i].double() @ video[j].double()), float(audio[i].double() @ audio[j].double()))
            for j in range(len(video))
            if j != i and j not in absent
        }
        found.append(sorted(sorted(agreement, key=agreement.get, reverse=True)[:count]))
    return found


@pytest.mark.parametrize("mode", COMBINE)
@pytest.mark.parametrize("absent", [(), (0, 7, 8, 30)])
def test_equals_an_exhaustive_search(mode, absent):
    video, audio = random_units(N, D, seed=1), random_units(N, D, seed=2)
    mask = torch.tensor([j in absent for j in range(N)]) if absent else None
    found = mine_positives(torch.arange(N), video, audio, count=COUNT, mode=mode, absent=mask)
    assert found.dtype == torch.int64
    assert found.tolist() == slow_positives(range(N), video, audio, COUNT, mode, absent)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(sorted(COMBINE)))
@settings(max_examples=30, deadline=None)
def test_chunks_of_rows_and_columns_do_not_matter(rows, tile, mode):
    video, audio = random_units(N, D, seed=3), random_units(N, D, seed=4)
    whole = mine_positives(torch.arange(N), video, audio, count=COUNT, mode=mode)
    parts = [
        mine_positives(part, video, audio, count=COUNT, mode=mode, tile=tile) for part in torch.arange(N).split(rows)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_half_precision_banks_and_repeated_vectors():
    """Two rows that show the same are each other's positives, and a row is never its own."""
    video, audio = random_units(N, D, seed=5).half(), random_units(N, D, seed=6).half()
    video[20], audio[20] = video[3], audio[3]
    found = mine_positives(torch.arange(N), video, audio, count=COUNT)
    assert found.tolist() == slow_positives(range(N), video, audio, COUNT, "consensus")
    assert 20 in found[3] and 3 in found[20]
    assert not (found == torch.arange(N)[:, None]).any()


def test_every_other_row_and_one_more():
    video, audio = random_units(4, D, seed=7), random_units(4, D, seed=8)
    assert mine_positives(torch.tensor([2]), video, audio, count=3, tile=1).tolist() == [[0, 1, 3]]
    with pytest.raises(ValueError, match="need at least 5 rows"):
        mine_positives(torch.tensor([2]), video, audio, count=4)
    with pytest.raises(ValueError, match="not 3"):
        mine_positives(torch.tensor([2]), video, audio, count=3, absent=torch.arange(4) == 1)


def test_negatives_are_uniform_outside_the_positives():
    positives = torch.tensor([[0, 1, 2], [3, 4, 9], [1, 5, 8]])
    drawn = draw_negatives_outside(positives, 10, 70_000, torch.Generator().manual_seed(0))
    for taken, draws in zip(positives, drawn, strict=True):
        counts = torch.bincount(draws, minlength=10)
        assert (counts[taken] == 0).all()
        others = counts[[j for j in range(10) if j not in taken]].double()
        assert ((others - 10_000).abs() < 5 * math.sqrt(10_000)).all()
