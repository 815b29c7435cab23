"""The study's training: shared first phases change nothing, oracle weights are the truth's, measures are right."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avssl.tasks.targets import Queries, draw_rows
from avssl.training.distributed import ProcessGroup
from eval.robustness.clips import augmented
from eval.robustness.learn import Learner
from eval.robustness.measure import auroc, embed, measure, probe, soft_mass
from eval.robustness.study import Training, World
from eval.robustness.worlds import load_world

TASK = {"name": "xid", "targets": "bank", "negatives": 8}
WEIGHTED = TASK | {"weights": {"minimum": 0.25}}


@pytest.fixture(scope="module")
def parts():
    return load_world(World("w", mismatch=0.5, clips=40, held_out=16, classes=4, variation=0.2, noise=0.5), seed=0)


def learner(parts, oracle=False):
    return Learner(parts.train, TASK, Training(batch_size=8), seed=1, oracle=oracle)


def test_going_on_from_a_shared_first_phase_changes_nothing(parts):
    whole = learner(parts)
    whole.learn(4, 1e-3)
    state = whole.state()
    whole.enter(WEIGHTED)
    whole.learn(3, 1e-3)
    other = learner(parts)
    other.load(state)
    other.enter(WEIGHTED)
    other.learn(3, 1e-3)
    a, b = whole.task.state_dict(), other.task.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(state["task"]["video_bank.memory"], a["video_bank.memory"]), "the kept state is a copy"


def test_oracle_weights_are_those_of_the_truth(parts):
    oracle, plain = learner(parts, oracle=True), learner(parts)
    rows = torch.arange(16)
    batch = augmented(parts.train, rows, np.random.default_rng(0))
    oracle.enter(WEIGHTED)
    ranks = ProcessGroup()
    wrong = parts.train.mismatched[rows]
    assert 0 < wrong.sum() < len(rows)
    weights = torch.where(wrong, 0.25, 1.0)

    def losses():
        """The loss of each query by itself, from the plain task with a batch of one query's own making."""
        out = plain.task.model(video=batch["video"].flatten(0, 1), audio=batch["audio"].flatten(0, 1))
        video, audio = (F.normalize(out[name], dim=1) for name in ("video", "audio"))
        columns = columns_of(plain.task, rows, seed=7)
        for queries, bank in ((video, plain.task.audio_bank), (audio, plain.task.video_bank)):
            scores = torch.einsum("bd,bjd->bj", queries, bank.memory[columns]) / 0.07
            yield F.cross_entropy(scores, torch.zeros_like(rows), reduction="none")

    expected = sum((weights * loss).sum() / weights.sum() for loss in losses()) / 2
    found = oracle.task(batch, ranks=ranks, seed=7)
    torch.testing.assert_close(found["loss"], expected)
    assert float(found["metrics"]["weight_mean"]) == pytest.approx(float(weights.mean()))


def columns_of(task, rows, seed):
    queries = Queries(rows, {}, rows, [len(rows)], 0)
    return draw_rows(queries, task.usable, task.config.negatives, seed)


def test_auroc_equals_counting_pairs():
    scores = torch.tensor([0.1, 0.4, 0.4, 0.8, 0.4, 0.0])
    positive = torch.tensor([False, True, False, True, False, False])
    pairs = list(itertools.product(scores[positive].tolist(), scores[~positive].tolist()))
    expected = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)
    assert auroc(scores, positive) == pytest.approx(expected)
    assert auroc(-scores, positive) == pytest.approx(1 - expected)


def test_probe_finds_what_is_linear_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (400,), generator=generator)
    noise = torch.randn(400, 8, generator=generator)
    features = 50 * (noise + 3 * F.one_hot(labels, 8)) + 7
    assert probe(features[:300], labels[:300], features[300:], labels[300:]) > 0.9
    assert probe(noise[:300], labels[:300], noise[300:], labels[300:]) < 0.5


def test_measures_of_an_untrained_task(parts):
    task = learner(parts).task
    before = {key: value.clone() for key, value in task.state_dict().items()}
    task.train()
    found = measure(task, parts)
    assert all(torch.equal(before[key], value) for key, value in task.state_dict().items())
    assert task.training
    assert found["instance_at_1_chance"] == pytest.approx(1 / 16)
    assert found["instance_at_10"] <= 1 and 0 <= found["probe_video"] <= 1
    assert abs(found["auroc"] - 0.5) < 0.35, "random banks know nothing"
    assert not any(key.startswith(("weight", "soft")) for key in found)


def test_soft_mass_of_planted_targets(parts):
    """Targets that show the class: all soft mass lies on the own class. Targets of other classes: none does."""
    one = learner(parts)
    one.enter(TASK | {"soft": {"strategy": "bootstrapping"}})
    clips = parts.train
    sides = {
        "video": F.one_hot(clips.label, 64).float(),
        "audio": F.one_hot(clips.heard, 64).float(),
    }
    found = soft_mass(one.task, sides, sides, clips)
    assert min(found["soft_class"], found["soft_class_right"], found["soft_class_wrong"]) > 0.999
    assert 0.1 < found["soft_class_chance"] < 0.4
    settings = one.task.config.soft
    settings.strategy = "swapped"  # asks the sound what the picture shows, and takes the sounds of pictures like it
    swapped = soft_mass(one.task, sides, sides, clips)
    assert swapped["soft_class_wrong"] < swapped["soft_class_right"] < 0.8, "half of those sounds are wrong"
    settings.strategy = "bootstrapping"
    shifted = {"video": F.one_hot((clips.label + 1) % 4, 64).float(), "audio": sides["audio"]}
    assert soft_mass(one.task, shifted, shifted, clips)["soft_class"] < 0.001


def test_embeddings_are_unit_and_in_the_clips_order(parts):
    task = learner(parts).task
    whole = embed(task, parts.held_out)
    norms = whole.embeddings["audio"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert len(whole.features["video"]) == len(parts.held_out)
