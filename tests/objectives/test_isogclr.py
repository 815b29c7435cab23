"""Individual temperatures: the published update pair by pair, its limits, its objective, its state."""

import math
import warnings

import pytest
import torch
from objective_tools import random_units

from avssl.objectives.candidates import Columns
from avssl.objectives.isogclr import Temperatures

B, N, D = 6, 20, 8
ROWS = torch.tensor([3, 11, 7, 0, 19, 5])
SETTINGS = {"start": 0.05, "low": 0.005, "high": 0.2, "rho": 1.0, "average": 0.8, "smooth": 0.9, "rate": 0.03}


def make(**changes):
    return Temperatures(N, **{**SETTINGS, **changes})


def similarities(seed=0, candidates=B):
    return random_units(B, D, seed=seed) @ random_units(candidates, D, seed=seed + 1).T


class SlowTemperatures:
    """The formulas in float64, one row at a time, without logarithms; s of a first visit is the batch's g."""

    def __init__(self, rows, *, start, low, high, rho, average, smooth, rate):
        self.tau, self.s, self.m = [start] * rows, [None] * rows, [0.0] * rows
        self.low, self.high, self.rho, self.average, self.smooth, self.rate = low, high, rho, average, smooth, rate

    def step(self, x, positive, rows):
        losses, gradients, changes = [], [], []
        for row, scores, own in zip(rows, x, positive, strict=True):
            tau, s, m = self.tau[row], self.s[row], self.m[row]
            negatives = [j for j, v in enumerate(scores) if j != own and v > -math.inf]
            h = {j: scores[j] - scores[own] for j in negatives}
            g = sum(math.exp(h[j] / tau) for j in negatives) / len(negatives)
            new = g if s is None else (1 - self.average) * s + self.average * g
            p = {j: math.exp(h[j] / tau) / new for j in negatives}
            losses.append(sum(p[j] * h[j] for j in negatives) / len(negatives))
            gradient = [p.get(j, 0.0) / len(negatives) for j in range(len(scores))]
            gradient[own] = -sum(p.values()) / len(negatives)
            gradients.append(gradient)
            if s is not None:
                slope = math.log(new) + self.rho - losses[-1] / tau
                m = (1 - self.smooth) * m + self.smooth * max(-5.0, min(5.0, slope))
                tau = max(self.low, min(self.high, tau - self.rate * m))
            changes.append((row, tau, new, m))
        for row, tau, s, m in changes:
            self.tau[row], self.s[row], self.m[row] = tau, s, m
        return losses, gradients


@pytest.mark.parametrize("average", [0.8, 1.0])
def test_steps_equal_the_formulas(average):
    ours, slow = make(average=average), SlowTemperatures(N, **{**SETTINGS, "average": average})
    columns = Columns(torch.arange(B), absent=torch.tensor([False, False, True, False, False, False]))
    for step in range(6):
        x = similarities(10 * step).masked_fill(columns.hidden(0, B), -torch.inf).requires_grad_()
        rows = ROWS.roll(step) if step % 2 else (ROWS + step) % N
        loss, state = ours(x, columns.positive, rows)
        loss.sum().backward()
        ours.update(rows, state)
        expected, gradients = slow.step(x.detach().double().tolist(), range(B), rows.tolist())
        torch.testing.assert_close(loss.double(), torch.tensor(expected).double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(x.grad.double(), torch.tensor(gradients).double(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.temperature, torch.tensor(slow.tau), rtol=1e-4, atol=1e-6)
    assert (ours.temperature[ROWS] != 0.05).any()
    unvisited = torch.tensor([s is None for s in slow.s])
    assert torch.equal(ours.log_mean == -torch.inf, unvisited) and unvisited.any()


def test_fixed_temperatures_without_averaging_are_log_mean_exp():
    """rate 0, average 1: the gradient of mean_i tau log mean_j exp(h_ij / tau), which is the plain contrast."""
    ours = make(rate=0, average=1)
    x = similarities().requires_grad_()
    positive = torch.arange(B)
    for _ in range(2):
        x.grad = None
        loss, state = ours(x, positive, ROWS)
        loss.mean().backward()
        ours.update(ROWS, state)
        y = x.detach().double().requires_grad_()
        h = (y - y.diag()[:, None]).masked_fill(torch.eye(B, dtype=torch.bool), -torch.inf)
        (0.05 * ((h / 0.05).logsumexp(1) - math.log(B - 1))).mean().backward()
        torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(ours.temperature, torch.full((N,), 0.05))


def test_slope_is_the_derivative_of_the_robust_objective():
    """d/dtau of tau log mean exp(h / tau) + tau rho, by finite differences; also rho - KL(p || uniform)."""
    x, tau, rho = similarities(), 0.2, 1.0
    h = (x - x.diag()[:, None]).double()[~torch.eye(B, dtype=torch.bool)].view(B, B - 1)

    def objective(tau):
        return tau * (h / tau).exp().mean(1).log() + tau * rho

    slope = (objective(tau + 1e-5) - objective(tau - 1e-5)) / 2e-5
    p = (h / tau).softmax(1)
    torch.testing.assert_close(slope, rho - (p * (p * (B - 1)).log()).sum(1), rtol=1e-7, atol=1e-7)

    ours = make(start=tau, average=1.0, smooth=1.0, high=1.0)
    for _ in range(2):  # the first visit only takes the mean
        _, state = ours(x, torch.arange(B), ROWS)
        ours.update(ROWS, state)
    assert slope.abs().max() < 5
    torch.testing.assert_close(ours.gradient[ROWS].double(), slope, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.temperature[ROWS].double(), tau - 0.03 * slope, rtol=1e-4, atol=1e-5)


def test_smallest_temperature_does_not_overflow():
    """At tau 0.005 exponents reach 400; a bad pair, opposite to its partner and equal to all others."""
    ours = make(start=0.005)
    x = torch.ones(2, 5)
    x[:, 0] = -1.0
    x = x.requires_grad_()
    for _ in range(3):
        loss, state = ours(x, torch.zeros(2, dtype=torch.int64), ROWS[:2])
        ours.update(ROWS[:2], state)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(x.grad).all()
    assert torch.isfinite(ours.log_mean[ROWS[:2]]).all()


def test_unreachable_rho_falls_to_the_floor_and_says_why():
    ours = make(average=1.0, rho=6.0)
    x = similarities()
    with pytest.warns(UserWarning, match=r"rho 6 is above log\(5 negatives\).*floor of 0\.005"):
        for _ in range(20):
            _, state = ours(x, torch.arange(B), ROWS)
            ours.update(ROWS, state)
    torch.testing.assert_close(ours.temperature[ROWS], torch.full((B,), 0.005))
    assert (ours.temperature == 0.05).sum() == N - B, "other rows keep theirs"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(rho=math.log(B - 1) - 0.1)(x, torch.arange(B), ROWS)


def test_temperature_rises_with_the_share_of_a_class():
    """Long-tailed toy set, all shares below e^-rho / 5: negatives of the own class spread the push over more rows."""
    sizes = [2, 6, 12, 24]
    labels = torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])
    others = 600 - len(labels)
    labels = torch.cat([labels, 10 + torch.arange(others)])
    centres = random_units(int(labels.max()) + 1, 64, seed=1)
    vectors = torch.nn.functional.normalize(
        centres[labels] + 0.02 * torch.randn(600, 64, generator=torch.Generator().manual_seed(2))
    )
    rho = 1.6  # e^-1.6 / 5 = 0.04 = 24 / 600
    ours = Temperatures(600, start=0.1, low=0.005, high=2.0, rho=rho, average=1.0, smooth=1.0, rate=0.01)
    x, rows = vectors @ vectors.T, torch.arange(600)
    for _ in range(120):
        _, state = ours(x, rows, rows)
        ours.update(rows, state)
    means = [ours.temperature[labels == c].mean().item() for c in range(4)]
    assert means == sorted(means) and means[-1] > 1.1 * means[0]


def test_state_survives_and_repeated_rows_take_the_last():
    ours = make()
    rows = torch.tensor([4, 9, 4])
    state = torch.tensor([[0.1, 1.0, 2.0], [0.2, 3.0, 4.0], [0.3, 5.0, 6.0]])
    ours.update(rows, state)
    again = make()
    again.load_state_dict(ours.state_dict())
    assert again.temperature[[4, 9]].tolist() == pytest.approx([0.3, 0.2])
    assert again.log_mean[[4, 9]].tolist() == [5, 3] and again.gradient[[4, 9]].tolist() == [6, 4]


def test_no_negatives_no_change():
    ours = make(rho=-0.5)
    x = torch.tensor([[0.5, -torch.inf]]).requires_grad_()
    loss, state = ours(x, torch.tensor([0]), ROWS[:1])
    loss.sum().backward()
    ours.update(ROWS[:1], state)
    assert loss.item() == 0 and torch.equal(x.grad, torch.zeros(1, 2))
    assert torch.equal(ours.temperature, make().temperature) and (ours.log_mean == -torch.inf).all()


def test_what_is_not_a_number_shows_in_the_loss_and_not_in_the_state():
    ours, x = make(), similarities()
    x[0] = math.nan
    loss, state = ours(x, torch.arange(B), ROWS)
    assert loss.isnan().tolist() == [True] + [False] * (B - 1)
    assert not state.isnan().any()
