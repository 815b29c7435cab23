"""AVSA-Bin, AVC-Bin and the yaw question on features made by hand: pairs, losses, scores, what can be learned."""

import math

import pytest
import torch

from avssl.errors import UsageError
from avssl.evaluation.bin_tasks import (
    CHANCE,
    PairHead,
    angle_between_deg,
    guess_of,
    loss_of,
    measure,
    pairs_of,
    partners,
    solve,
)
from avssl.evaluation.scene_config import HeadTraining
from avssl.evaluation.scenes import Scenes, first_views

FIT = HeadTraining(passes=20, batch_size=64, lr=5e-3, drop_at=[16], hidden=32, dropout=0.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scenes(draws=256, views=2, seed=0, sources=16, informative=True):
    """Views that see a number; the sound has the same number, turned the opposite, in a world of 8 dimensions.

    The sound also has the cosine and sine of its scene's turn against the picture's, as a good model's would.
    """
    g = generator(seed)
    what = torch.randint(0, 2, (draws, views, 1), generator=g).float() * 2 - 1
    turn_deg = torch.rand(draws, generator=g) * 360 - 180
    angle = torch.stack([turn_deg.deg2rad().cos(), turn_deg.deg2rad().sin()], -1)[:, None].expand(-1, views, 2)

    def features(number, direction):
        noise = torch.randn(draws, views, 5, generator=g) * 0.1
        found = torch.cat([number.expand(-1, views, 1), direction, noise], -1)
        return found if informative else torch.randn(draws, views, 8, generator=g)

    still = torch.tensor([1.0, 0.0]).expand(draws, views, 2)
    group = torch.randint(0, sources, (draws,), generator=g)
    video, audio, turned = features(what, still), features(what, still), features(-what, angle)
    return Scenes(torch.arange(draws), group, video, audio, turned, turn_deg, torch.zeros(draws, views, 5))


def test_other_sounds_come_from_other_sources_and_from_all_of_them():
    groups = torch.tensor([0] * 6 + [1] * 2 + [2])
    counts = torch.zeros(9, 9)
    for seed in range(300):
        found = partners(groups, generator(seed))
        assert (groups[found] != groups).all()
        counts[torch.arange(9), found] += 1
    assert (counts[0, 6:] > 60).all(), "all three that are left come equally often"
    assert torch.equal(partners(groups, generator(5)), partners(groups, generator(5)))
    with pytest.raises(UsageError, match="one source file"):
        partners(torch.zeros(4, dtype=torch.long), generator())


@pytest.mark.parametrize("task", ["avsa_bin", "avc_bin"])
def test_pairs_are_balanced_and_of_the_right_sounds(task):
    data = scenes(40)
    pairs = pairs_of(task, data, generator())
    assert pairs.answer.float().mean() == 0.5
    right, wrong = pairs.answer == 1, pairs.answer == 0
    assert torch.equal(pairs.video[right], data.video) and torch.equal(pairs.video[wrong], data.video)
    assert torch.equal(pairs.audio[right], data.audio)
    if task == "avsa_bin":
        assert torch.equal(pairs.audio[wrong], data.turned)
    else:
        of = [(data.audio == sound).flatten(1).all(1).nonzero().item() for sound in pairs.audio[wrong]]
        assert (data.group[of] != data.group).all()
    assert torch.equal(pairs.draw[right], pairs.draw[wrong])


def test_the_loss_of_classes_is_the_mean_over_pairs_and_views():
    outputs, answer = torch.randn(3, 4, 2, dtype=torch.float64), torch.tensor([1, 0, 1])
    slow = [
        math.log(sum(math.exp(value) for value in outputs[m, k].tolist())) - outputs[m, k, answer[m]].item()
        for m in range(3)
        for k in range(4)
    ]
    assert loss_of("avc_bin", outputs, answer).item() == pytest.approx(sum(slow) / 12)


def test_the_loss_of_angles_is_zero_where_they_are_right_and_two_where_opposite():
    answer = torch.tensor([0.0, 90.0, -135.0], dtype=torch.float64)
    right = torch.stack([answer.deg2rad().cos(), answer.deg2rad().sin()], -1)[:, None].repeat(1, 3, 1)
    assert loss_of("yaw", 5 * right, answer).item() == pytest.approx(0, abs=1e-9)
    assert loss_of("yaw", -right, answer).item() == pytest.approx(2)
    torch.testing.assert_close(guess_of("yaw", right), answer)


def test_views_are_averaged_before_the_answer():
    outputs = torch.tensor([[[0.0, 1.0], [0.0, 1.0], [5.0, 0.0]]])
    assert guess_of("avsa_bin", outputs).tolist() == [0]
    assert guess_of("avsa_bin", outputs[:, :2]).tolist() == [1]


def test_errors_of_angles_go_round_the_circle():
    assert angle_between_deg(torch.tensor([179.0, 10.0, 0.0]), torch.tensor([-179.0, -20.0, 180.0])).tolist() == [
        2,
        30,
        180,
    ]
    found = measure("yaw", torch.tensor([0.0, 170.0, 90.0]), torch.tensor([10.0, -170.0, -90.0]))
    assert found == {"mean_error_deg": 70.0, "median_error_deg": 20.0, "within_30_deg": pytest.approx(2 / 3)}
    uniform = torch.linspace(-180, 179.9, 3600, dtype=torch.float64)
    by_chance = measure("yaw", torch.zeros(3600, dtype=torch.float64), uniform)
    assert by_chance == {key: pytest.approx(value, rel=0.01) for key, value in CHANCE["yaw"].items()}


@pytest.mark.parametrize("task", ["avsa_bin", "avc_bin", "yaw"])
def test_what_is_in_the_features_is_learned(task):
    found = solve(task, scenes(), scenes(seed=1), FIT)
    if task == "yaw":
        assert found.metrics["median_error_deg"] < 15
    elif task == "avsa_bin":
        assert found.metrics["accuracy"] > 0.95
    else:  # half of the other sounds have the same number in a view, a quarter in both
        assert found.metrics["accuracy"] > 0.75


def test_equal_arguments_give_equal_answers():
    fit = HeadTraining(passes=2, batch_size=64, lr=1e-3, drop_at=[1], hidden=16)
    first, again, other = (solve("avc_bin", scenes(), scenes(seed=1), fit, seed=seed).guesses for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("task", ["avsa_bin", "avc_bin", "yaw"])
def test_nothing_is_learned_from_noise(task):
    fit = HeadTraining(passes=3, batch_size=64, lr=1e-3, drop_at=[], hidden=16)
    found = solve(task, scenes(informative=False), scenes(1024, informative=False, seed=1), fit).metrics
    key = "accuracy" if task != "yaw" else "within_30_deg"
    assert found[key] == pytest.approx(CHANCE[task][key], abs=0.06)


def test_more_views_help_and_one_is_a_part_of_them():
    def noisy(seed):
        data, g = scenes(512, views=4, seed=seed), generator(seed + 9)
        loud = {
            name: getattr(data, name) + torch.randn(512, 4, 8, generator=g) for name in ("video", "audio", "turned")
        }
        return data._replace(**loud)

    train, test = noisy(0), noisy(1)
    four = solve("avsa_bin", train, test, FIT).metrics["accuracy"]
    one = solve("avsa_bin", first_views(train, 1), first_views(test, 1), FIT).metrics["accuracy"]
    assert four > one + 0.03


def test_the_head_is_the_published_one():
    head = PairHead(512)
    assert sum(parameter.numel() for parameter in head.parameters()) == 1024 * 512 + 512 + 512 * 2 + 2
    assert head.layers[0].p == 0.5
