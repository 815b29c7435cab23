"""Which moments weights are made of, and when they are taken."""

import pytest
import torch
from task_tools import BATCH_WEIGHTS, ROWS, STEPS, WEIGHTS, make_batch, make_task, run

from avssl.objectives.weights import pair_weights
from avssl.tasks.pair_weights import PairWeights
from avssl.tasks.xid_config import WeightsConfig
from avssl.training.distributed import ProcessGroup

USABLE = [0, 2, 3, 5, 8, 9, 13]


def exact(task, usable):
    scores = (task.video_bank.memory[usable].double() * task.audio_bank.memory[usable].double()).sum(1)
    return [1.0, float(scores.mean()), float(scores.square().mean())]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bank_statistics_are_exact_over_usable_rows(dtype):
    task = make_task(usable=USABLE, weights=WEIGHTS, bank_dtype=dtype)
    task.before_step(0, ProcessGroup())
    assert task.pair_weights.moments.tolist() == pytest.approx(exact(task, USABLE), rel=1e-5)


def test_bank_statistics_are_taken_every_so_many_passes():
    """Half a pass of four steps: before the steps 0, 2 and 4."""
    task = make_task(weights=WEIGHTS, steps_per_pass=4.0)
    for step, rows in enumerate(STEPS):
        before = task.pair_weights.moments.tolist()
        now = exact(task, list(range(ROWS)))
        run(task, [rows], first=step)
        taken = task.pair_weights.moments.tolist()
        assert taken == (pytest.approx(now, rel=1e-5) if step % 2 == 0 else before)


def test_batch_statistics_begin_with_the_first_batch_and_follow():
    weights = PairWeights(WeightsConfig(statistics="batch", momentum=0.75, minimum=0.0))
    first, second = torch.tensor([0.1, 0.3, 0.5]), torch.tensor([0.4, 0.8])
    expected = pair_weights(first, first.mean(), first.std(correction=0), minimum=0.0, shift=0.0, sharpness=0.5)
    found, sums = weights(first, ProcessGroup())
    torch.testing.assert_close(found, expected)
    weights.follow(sums)
    weights.follow(weights(second, ProcessGroup())[1])
    assert weights.moments.tolist() == pytest.approx(
        [1.0, 0.75 * 0.3 + 0.25 * 0.6, 0.75 * 0.35 / 3 + 0.25 * 0.4], rel=1e-6
    )


def test_batch_statistics_do_not_move_where_a_step_is_skipped():
    task = make_task(targets="batch", weights=BATCH_WEIGHTS)
    task(make_batch(STEPS[0]), ranks=ProcessGroup(), seed=0)
    assert task.pair_weights.moments.tolist() == [0, 0, 0]


def test_equal_scores_get_finite_weights():
    """The deviation is zero: as in a collapsed model, or for a batch of one."""
    found, _ = PairWeights(WeightsConfig(statistics="batch"))(torch.tensor([0.4]), ProcessGroup())
    assert torch.isfinite(found).all()


def test_a_pair_that_agrees_less_counts_less():
    task = make_task(weights={**WEIGHTS, "minimum": 0.0, "sharpness": 0.05}, bank_momentum=0.99)
    task.video_bank.memory.copy_(task.audio_bank.memory)
    task.video_bank.memory[4] *= -1
    task.before_step(0, ProcessGroup())
    metrics = task(make_batch([1, 2, 3, 4]), ranks=ProcessGroup(), seed=0)["metrics"]
    assert (float(metrics["weight_00"]), float(metrics["weight_80"])) == (0.25, 0.75)


def test_weight_one_for_all_is_the_unweighted_loss():
    plain, weighted = make_task(), make_task(weights={**WEIGHTS, "minimum": 1.0})
    ours, theirs = run(plain, STEPS), run(weighted, STEPS)
    for mine, other in zip(ours, theirs, strict=True):
        assert {key: other[key] for key in mine} == pytest.approx(mine, rel=1e-6)


def test_no_gradient_passes_through_weights():
    """In-batch, the scores are those of the embeddings: the gradient must be that of constants."""
    task, batch = make_task(targets="batch", weights=BATCH_WEIGHTS), make_batch(STEPS[0])
    captured = {}
    task.pair_weights.register_forward_hook(lambda module, given, out: captured.update(weights=out[0]))
    task(batch, ranks=ProcessGroup(), seed=0)["loss"].backward()
    assert not captured["weights"].requires_grad
    gradients = [parameter.grad.clone() for parameter in task.parameters()]
    other = make_task(targets="batch", weights=BATCH_WEIGHTS)
    constant = captured["weights"]
    other.pair_weights.register_forward_hook(lambda module, given, out: (constant, out[1]))
    other(batch, ranks=ProcessGroup(), seed=0)["loss"].backward()
    for mine, theirs in zip(gradients, other.parameters(), strict=True):
        assert torch.equal(mine, theirs.grad)
