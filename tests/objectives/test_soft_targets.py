"""The four strategies of soft targets: published numbers, definitions pair by pair, invariants."""

import pytest
import torch
from objective_tools import random_units, slow_softmax

from avssl.objectives.candidates import Columns
from avssl.objectives.soft_targets import Side, soft_targets
from avssl.objectives.xid import soft_distribution, xid

STRATEGIES = ["bootstrapping", "swapped", "neighbor", "cycle"]
B, D = 6, 5


def make_sides(layout="shared", seed=0):
    """Candidates are rows 0 to 8 of two banks; the samples are rows 2 to 7, their online embeddings apart."""
    banks = [random_units(9, D, seed=seed + 1), random_units(9, D, seed=seed + 2)]
    targets = [bank if layout == "shared" else bank.expand(B, 9, D) for bank in banks]
    online = [random_units(B, D, seed=seed + 3), random_units(B, D, seed=seed + 4)]
    return tuple(Side(o, bank[2:8], t) for o, bank, t in zip(online, banks, targets, strict=True))


def make(strategy, source, other, query="memory", **changes):
    settings = {"share": 0.5, "temperature": 0.3, "agreement_temperature": 0.7, **changes}
    return soft_targets(strategy, source, other, query=query, **settings)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("bootstrapping", (0.2835, 0.6310, 0.0854)),
        ("swapped", (0.2200, 0.4519, 0.3281)),
        ("neighbor", (0.5538, 0.3712, 0.0750)),
        ("cycle", (0.1568, 0.4288, 0.4143)),
    ],
)
@pytest.mark.parametrize("query", ["online", "memory"])
def test_oracle_of_methods_a13(strategy, expected, query):
    video = torch.tensor([[1, 0], [0.8, 0.6], [0, 1]])
    audio = torch.tensor([[0.6, 0.8], [1, 0], [0, 1]])
    sides = (Side(video, video, video), Side(audio, audio, audio))
    soft = make(strategy, *sides, query=query, temperature=0.5)
    first = soft_distribution(soft, Columns(torch.arange(3)))[0]
    torch.testing.assert_close(first, torch.tensor(expected), rtol=0, atol=6e-5)


@pytest.mark.parametrize("layout", ["shared", "own"])
@pytest.mark.parametrize("query", ["online", "memory"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_equals_its_definition(strategy, query, layout):
    source, other = make_sides(layout)
    tau_s, tau_t = 0.3, 0.7
    columns = Columns(torch.arange(2, 8), absent=torch.arange(9) == 0)
    found = soft_distribution(make(strategy, source, other, query), columns)
    s, t = ((getattr(side, query).double(), side.targets.double()) for side in (source, other))
    (s_i, s_j), (t_i, t_j) = s, t
    for i in range(B):
        ours, theirs = (x[i] if layout == "own" else x for x in (s_j, t_j))
        logits = []
        for j in range(9):
            logits.append(
                {
                    "bootstrapping": s_i[i] @ theirs[j] / tau_s,
                    "swapped": t_i[i] @ ours[j] / tau_s,
                    "neighbor": s_i[i] @ ours[j] / tau_s,
                    "cycle": s_i[i] @ t_i[i] / tau_t + t_i[i] @ ours[j] / tau_s + ours[j] @ theirs[j] / tau_t,
                }[strategy].item()
            )
        logits[0] = -torch.inf
        torch.testing.assert_close(found[i].double(), torch.tensor(slow_softmax(logits)).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_invariants(strategy):
    """Rows sum to 1; the two directions differ; nothing carries gradient; the products of pairs may be at hand."""
    source, other = make_sides()
    columns = Columns(torch.arange(2, 8))
    soft = make(strategy, source, other)
    spread = soft_distribution(soft, columns)
    torch.testing.assert_close(spread.sum(1), torch.ones(B))
    assert not torch.allclose(soft_distribution(make(strategy, other, source), columns), spread)
    given = make(strategy, source, other, agreement=(source.targets * other.targets).sum(-1))
    torch.testing.assert_close(soft_distribution(given, columns), spread)

    source = Side(*(x.clone().requires_grad_() for x in source))
    other = Side(*(x.clone().requires_grad_() for x in other))
    queries = random_units(B, D, seed=9).requires_grad_()
    with_gradient = make(strategy, source, other)
    assert not soft_distribution(with_gradient, columns).requires_grad
    xid(queries, random_units(9, D), columns, temperature=0.1, soft=with_gradient).loss.sum().backward()
    assert queries.grad is not None and all(x.grad is None for x in (*source, *other))


def test_cycle_without_agreement_is_swapped_from_memory():
    """tau_t to infinity."""
    source, other = make_sides()
    columns = Columns(torch.arange(2, 8))
    cycle = make("cycle", source, other, "memory", agreement_temperature=1e9)
    torch.testing.assert_close(
        soft_distribution(cycle, columns), soft_distribution(make("swapped", source, other, "memory"), columns)
    )


def test_cycle_prefers_candidates_whose_own_sides_agree():
    """Two candidates equally near to the query's partner: the one with a faulty pair gets less."""
    source, other = make_sides()
    audio = other.targets.clone()
    video = source.targets.clone()
    video[1] = video[0]
    audio[0], audio[1] = video[0], -video[0]
    soft = make("cycle", source._replace(targets=video), other._replace(targets=audio))
    spread = soft_distribution(soft, Columns(torch.arange(2, 8)))
    torch.testing.assert_close(spread[:, 0] / spread[:, 1], torch.full((B,), torch.tensor(2 / 0.7).exp().item()))


def test_only_neighbor_lets_go_of_the_own_column():
    source, other = make_sides()
    columns = Columns(torch.arange(2, 8))
    own = torch.arange(B), columns.positive
    for strategy in STRATEGIES:
        spread = soft_distribution(make(strategy, source, other, own=False), columns)
        assert (spread[own] == 0).all() if strategy == "neighbor" else (spread[own] > 0).all()
        torch.testing.assert_close(spread.sum(1), torch.ones(B))


def test_a_likely_partner_pulls_and_does_not_push():
    """methods A.5: the gradient to a candidate turns as soon as T_j exceeds P_j."""
    source, other = make_sides()
    columns = Columns(torch.arange(2, 8))
    targets = other.targets.clone().requires_grad_()
    soft = make("swapped", source, other, temperature=0.05)
    query = slice(0, 1)
    some = soft._replace(queries=soft.queries[query])
    xid(source.online[query], targets, columns.of(query), temperature=1.0, soft=some).loss.sum().backward()
    target = 0.5 * soft_distribution(some, columns.of(query))[0]
    target[2] += 0.5
    posterior = (source.online[0] @ other.targets.T).softmax(0)
    assert ((target > posterior) == (targets.grad @ source.online[0] < 0)).all()
    assert (target > posterior)[[0, 1, 3, 4, 5, 6, 7, 8]].any(), "a case in which a negative pulls"
