"""The AVSA loss against a loop over queries and candidates, and what must leave it unchanged."""

import math

import pytest
import torch

from avssl.objectives.avsa import alignment
from avssl.objectives.scores import unit

TEMPERATURE = 0.2


def vectors(videos=5, views=3, dim=6, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, videos, views, dim, generator=generator, dtype=torch.float64)
    return [torch.nn.functional.normalize(x, dim=-1).to(dtype) for x in made]


def reference(queries, targets, own, candidates, negatives, same=None):
    """Query by query, candidate by candidate: losses, and the two judgements."""
    losses, easy_won, hard_won = [], [], []
    for b, query_views in enumerate(queries):
        for k, query in enumerate(query_views):
            mine = int(own[b])
            positive = float(query @ targets[mine, k]) / TEMPERATURE
            hard = [float(query @ targets[mine, j]) / TEMPERATURE for j in range(len(query_views)) if j != k]
            easy = []
            for n in range(len(targets)):
                if n == mine or (same is not None and same[b, n]):
                    continue
                seen = [k] if candidates == "released" else range(len(query_views))
                easy += [float(query @ targets[n, j]) / TEMPERATURE for j in seen]
            used = [positive] + hard * ("hard" in negatives) + easy * ("easy" in negatives)
            losses.append(math.log(sum(map(math.exp, used))) - positive)
            easy_won.append(all(positive > score for score in easy))
            hard_won.append(all(positive > score for score in hard))
    return torch.tensor(losses, dtype=torch.float64), torch.tensor(easy_won), torch.tensor(hard_won)


@pytest.mark.parametrize("negatives", ["easy+hard", "hard", "easy"])
@pytest.mark.parametrize("candidates", ["paper", "released"])
@pytest.mark.parametrize("repeated", [False, True])
def test_it_is_what_a_loop_over_candidates_gives(negatives, candidates, repeated):
    queries, targets = vectors()
    queries, own = queries[1:3], torch.tensor([1, 2])  # the part of one rank
    same = torch.zeros(2, 5, dtype=torch.bool)
    same[0, 4] = repeated
    found = alignment(
        queries, targets, own, temperature=TEMPERATURE, candidates=candidates, negatives=negatives, same=same
    )
    losses, easy_won, hard_won = reference(queries, targets, own, candidates, negatives, same)
    torch.testing.assert_close(found.loss.flatten(), losses)
    assert torch.equal(found.beats_easy.flatten(), easy_won)
    assert torch.equal(found.beats_hard.flatten(), hard_won)
    assert 0 < int(easy_won.sum() + hard_won.sum()) < 12


def test_gradients_reach_queries_and_targets():
    queries, targets = (x.requires_grad_() for x in vectors(videos=3, views=2, dim=3))

    def total(queries, targets):
        return alignment(queries, targets, torch.arange(3), temperature=TEMPERATURE).loss.sum()

    assert torch.autograd.gradcheck(total, (queries, targets))


@pytest.mark.parametrize("candidates", ["paper", "released"])
def test_the_order_of_views_carries_no_meaning(candidates):
    queries, targets = vectors()
    options = {"temperature": TEMPERATURE, "candidates": candidates}
    turned = alignment(queries[:, [2, 0, 1]], targets[:, [2, 0, 1]], torch.arange(5), **options).loss
    torch.testing.assert_close(turned, alignment(queries, targets, torch.arange(5), **options).loss[:, [2, 0, 1]])


def test_more_candidates_never_lower_the_loss():
    queries, targets = vectors()

    def loss(**options):
        return alignment(queries, targets, torch.arange(5), temperature=TEMPERATURE, **options).loss

    assert (loss(candidates="paper") > loss(candidates="released")).all()
    assert (loss(negatives="easy+hard") > loss(negatives="hard")).all()
    assert (loss(negatives="easy+hard") > loss(negatives="easy")).all()


def test_one_view_and_one_video_leave_nothing_to_choose():
    queries, targets = vectors(videos=1, views=1)
    found = alignment(queries, targets, torch.arange(1), temperature=TEMPERATURE)
    torch.testing.assert_close(found.loss, torch.zeros_like(found.loss))


def test_half_precision_is_computed_in_float32():
    queries, targets = vectors(dtype=torch.bfloat16)
    found = alignment(queries, targets, torch.arange(5), temperature=0.07).loss
    assert found.dtype == torch.float32
    exact = alignment(queries.float(), targets.float(), torch.arange(5), temperature=0.07).loss
    assert torch.equal(found, exact)


def test_right_predictions_win():
    _, targets = vectors()
    found = alignment(unit(targets), unit(targets), torch.arange(5), temperature=0.07)
    assert found.beats_easy.all() and found.beats_hard.all()
