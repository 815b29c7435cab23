"""A training step loses what a plain loop over the same network, batches and start loses: the benchmark's premise."""

import dataclasses

import pytest
from training_tools import make_config

from avssl.data.loader import Loader
from avssl.data.transforms import prepare
from avssl.training.loop import Trainer
from benchmarks import train_step
from benchmarks.plain_loop import prepared


def test_steps_lose_the_same_as_in_a_plain_loop(tree):
    changes = {"task.negatives": train_step.NEGATIVES, "task.temperature": train_step.TEMPERATURE}
    config = make_config(tree, **changes)
    loader = Loader(dataclasses.replace(config.data, workers=0))
    batches = [next(loader) for _ in range(3)]
    learner = Trainer(config, say=lambda line: None).learner
    state = {key: value.clone() for key, value in learner.task.state_dict().items()}
    plain = train_step.make_plain(config, {"task": state, "device": "cpu"})
    ours = [step["loss"] for step in train_step.run_steps(learner, batches)]
    theirs = [plain.step(batch, number) for number, batch in enumerate(batches, 1)]
    train_step.check_losses("ours", ours, theirs)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    with pytest.raises(AssertionError, match="step 2"):
        train_step.check_losses("ours", [ours[0], 1.05 * ours[1]], theirs[:2])


def test_the_plain_loop_prepares_the_same_pictures_and_sounds(tree):
    config = make_config(tree)
    batch = next(Loader(config.data))
    ours = prepare(batch, config.model.video_input)
    video, audio = prepared(batch, config.model.video_input)
    assert (video - ours["video"][:, 0]).abs().max() < 1e-3  # of a range of four
    assert (audio - ours["audio"][:, 0]).abs().max() < 1e-6
