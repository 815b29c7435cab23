"""The learning rate by its definition, and published defaults."""

import itertools
import math

import pytest
import torch

from avssl.training.config import OptimConfig, ScheduleConfig
from avssl.training.optim import learning_rate, make_optimizer, set_learning_rate, warmup_length


def test_warm_up_rises_to_the_peak_and_constant_stays():
    config = ScheduleConfig(warmup_steps=4)
    rates = [learning_rate(config, 2.0, step, total=10, warmup=4) for step in range(1, 11)]
    assert rates == [0.5, 1.0, 1.5, 2.0] + [2.0] * 6


def test_cosine_ends_at_its_final_share():
    config = ScheduleConfig(name="cosine", final=0.1)
    rates = [learning_rate(config, 1.0, step, total=100, warmup=20) for step in range(1, 101)]
    assert rates[19] == 1.0
    assert rates[59] == pytest.approx(0.1 + 0.9 / 2)  # half way after the warm-up
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[19:]))
    assert rates[39] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))


def test_warm_up_counts_steps_and_passes():
    assert warmup_length(ScheduleConfig(warmup_steps=5, warmup_passes=1.5), steps_per_pass=12.5) == 24


def test_defaults_are_the_published_ones():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = make_optimizer([weight], OptimConfig())
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.Adam
    assert (group["lr"], group["betas"], group["weight_decay"]) == (2e-4, (0.9, 0.999), 1e-5)
    set_learning_rate(optimizer, 0.5)
    assert group["lr"] == 0.5
    assert type(make_optimizer([weight], OptimConfig(name="adamw"))) is torch.optim.AdamW


def test_warm_up_by_decades_is_that_of_uss():
    config = ScheduleConfig(warmup="decades", warmup_steps=30)
    rates = [learning_rate(config, 1.0, step, total=50, warmup=30) for step in range(1, 51)]
    assert rates == pytest.approx([1e-3] * 10 + [1e-2] * 10 + [1e-1] * 10 + [1.0] * 20)


def test_amsgrad_is_handed_on():
    weight = torch.nn.Parameter(torch.ones(2))
    for wanted in (False, True):
        config = OptimConfig(name="adamw", amsgrad=wanted)
        assert make_optimizer([weight], config).param_groups[0]["amsgrad"] is wanted
