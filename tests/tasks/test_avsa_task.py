"""The AVSA task: what its losses are made of, its phases, and one process against two."""

import dataclasses

import pytest
import torch
from task_tools import PARTS, in_two_processes
from torch import nn

from avssl import config as configuration
from avssl.data.config import AudioSpec, DataConfig
from avssl.errors import ConfigError
from avssl.models.aligner import Aligner
from avssl.models.config import AlignmentConfig, HeadConfig, ModelConfig, TowerConfig
from avssl.objectives.avsa import alignment
from avssl.spatial.config import Switches, ViewConfig
from avssl.tasks.avsa import AVSATask
from avssl.tasks.avsa_config import AVSAConfig
from avssl.tasks.registry import task_class, task_config_class
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

WIDTH, VIEWS = 8, 3
MODES = {
    "avsa": {},
    "avsa-released": {"candidates": "released"},
    "hard": {"negatives": "hard"},
    "easy": {"negatives": "easy"},
    "avts": {"mode": "avts"},
    "avc": {"mode": "avc"},
    "avsa-local": {"gather": False},
    "avc-local": {"mode": "avc", "gather": False},
}


class TinyModel(nn.Module):
    """Two linear towers with batch norm, features [B, WIDTH] of inputs [B, 6]; the aligner is the real one."""

    def __init__(self, depth=1):
        super().__init__()
        torch.manual_seed(0)
        self.video_features = nn.Sequential(nn.Linear(6, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        self.audio_features = nn.Sequential(nn.Linear(6, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        self.aligner = Aligner(WIDTH, AlignmentConfig(depth=depth, dropout=0.0, dim=5))


def make_task(depth=1, ranks=None, **options):
    model = synchronise_batch_norm(TinyModel(depth), ranks or ProcessGroup())
    config = configuration.build(AVSAConfig, {"temperature": 0.2, **options}, "task")
    return AVSATask(config, model, rows=9, seed=4).train()


def make_batch(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    video, audio = torch.randn(2, len(rows), VIEWS, 6, generator=generator)
    return {"row": torch.tensor(rows), "video": video, "audio": audio}


STEPS = [[3, 1, 4, 1, 5], [2, 6, 7, 8, 3]]


def train(ranks, names=tuple(MODES)):
    """Metrics, gradients and parameters after two steps of each mode; the second phase follows on AVC."""
    found = {}
    for name in (*names, "curriculum"):
        task = make_task(ranks=ranks, **MODES.get(name, MODES["avc"]))
        wrapped = nn.parallel.DistributedDataParallel(task) if ranks.size > 1 else task
        optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
        metrics = []
        for number, rows in enumerate(STEPS):
            if name == "curriculum" and number == 1:
                task.enter(AVSAConfig(temperature=0.2))
            batch = make_batch(rows, number)
            if ranks.size > 1:
                start = sum(PARTS[: ranks.rank])
                batch = {key: value[start : start + PARTS[ranks.rank]] for key, value in batch.items()}
            task.before_step(number, ranks)
            output = wrapped(batch, ranks=ranks, seed=number)
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
            task.after_step([output["memory"]], ranks)
            metrics.append({key: float(value) for key, value in output["metrics"].items()})
        gradients = {key: parameter.grad.clone() for key, parameter in task.named_parameters()}
        found[name] = metrics, gradients, {key: value.clone() for key, value in task.state_dict().items()}
    return found


@pytest.fixture(scope="module")
def of_both_ranks():
    return in_two_processes(train)


@pytest.mark.parametrize("name", [*(name for name in MODES if "local" not in name), "curriculum"])
def test_two_processes_equal_one(name, of_both_ranks):
    mine = train(ProcessGroup(), [name] if name in MODES else [])[name]
    for found in of_both_ranks:
        metrics, gradients, state = found[name]
        for ours, theirs in zip(mine[0], metrics, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
        torch.testing.assert_close(gradients, mine[1], rtol=1e-3, atol=2e-6)
        torch.testing.assert_close(state, mine[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["avsa-local", "avc-local"])
def test_candidates_of_the_own_process_give_the_same_parameters_on_all(name, of_both_ranks):
    first, second = (found[name] for found in of_both_ranks)
    assert first[0] == second[0]
    torch.testing.assert_close(first[1], second[1], rtol=0, atol=0)
    gathered = train(ProcessGroup(), [name.removesuffix("-local")])[name.removesuffix("-local")]
    assert first[0][0]["loss"] < gathered[0][0]["loss"]  # fewer negatives


def test_the_loss_is_the_mean_over_modalities_views_and_samples():
    task, batch = make_task(), make_batch([3, 1, 4])
    model = task.model
    features = {
        name: torch.stack([getattr(model, f"{name}_features")(batch[name].flatten(0, 1))]).view(3, VIEWS, WIDTH)
        for name in ("video", "audio")
    }
    heads = {
        "audio": (model.aligner.audio_pred_head(model.aligner.v2a_transformer(features["video"])),
                  model.aligner.audio_head(features["audio"])),
        "video": (model.aligner.video_pred_head(model.aligner.a2v_transformer(features["audio"])),
                  model.aligner.video_head(features["video"])),
    }  # fmt: skip
    found = {
        name: alignment(*(nn.functional.normalize(x, dim=-1) for x in pair), torch.arange(3), temperature=0.2)
        for name, pair in heads.items()
    }
    expected = sum(judged.loss.mean() for judged in found.values()) / 2
    output = task(batch, ranks=ProcessGroup(), seed=0)
    torch.testing.assert_close(output["loss"], expected)
    torch.testing.assert_close(output["metrics"]["loss"], expected)
    torch.testing.assert_close(output["metrics"]["loss_audio"], found["audio"].loss.mean())
    won = [judged.beats_hard.float().mean() for judged in found.values()]
    torch.testing.assert_close(output["metrics"]["beats_hard"], sum(won) / 2)


def test_avc_takes_the_largest_features_over_views():
    task, batch = make_task(mode="avc"), make_batch([3, 1, 4])
    twice = {key: value if key == "row" else value.repeat(1, 2, 1) for key, value in batch.items()}
    task.eval()
    one, two = (task(b, ranks=ProcessGroup(), seed=0)["loss"] for b in (batch, twice))
    torch.testing.assert_close(one, two)


def test_a_sample_that_comes_twice_is_no_negative_of_itself():
    for mode in ("avsa", "avc"):
        task = make_task(mode=mode).eval()
        once = make_batch([3])
        doubled = {key: torch.cat([value, value]) for key, value in once.items()}
        losses = [task(b, ranks=ProcessGroup(), seed=0)["loss"] for b in (once, doubled)]
        torch.testing.assert_close(*losses)


def test_leaving_avc_keeps_the_towers_and_renews_the_aligner_repeatably():
    tasks = [make_task(mode="avc") for _ in range(2)]
    before = {key: value.clone() for key, value in tasks[0].state_dict().items()}
    for seed, task in enumerate(tasks):
        torch.manual_seed(seed)
        task.enter(AVSAConfig())
    after = tasks[0].state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if "aligner" not in key)
    assert not torch.equal(after["model.aligner.video_head.projection.0.weight"],
                           before["model.aligner.video_head.projection.0.weight"])  # fmt: skip
    torch.testing.assert_close(after, tasks[1].state_dict(), rtol=0, atol=0)
    trained = {key: value.clone() for key, value in after.items()}
    tasks[0].enter(AVSAConfig(negatives="hard"))
    torch.testing.assert_close(tasks[0].state_dict(), trained, rtol=0, atol=0)


def test_avc_alone_needs_no_transformers():
    output = make_task(depth=None, mode="avc")(make_batch([1, 2]), ranks=ProcessGroup(), seed=0)
    output["loss"].backward()
    assert float(output["metrics"]["top1_v2a"]) <= 1


def test_the_registry_knows_it():
    assert task_config_class("avsa") is AVSAConfig and task_class("avsa") is AVSATask


TOWERS = {"video": TowerConfig("tiny_video"), "audio": TowerConfig("tiny_audio"), "head": None}
MODEL = ModelConfig(**TOWERS, alignment=AlignmentConfig())
DATA = DataConfig(shards=["x"], views=ViewConfig(), audio=AudioSpec(channels=4))


@pytest.mark.parametrize(
    ("options", "data", "model", "said"),
    [
        ({}, {}, {"alignment": None}, "model.alignment"),
        ({}, {}, {"head": HeadConfig()}, "model.head"),
        ({}, {}, {"alignment": AlignmentConfig(depth=None)}, "model.alignment.depth"),
        ({}, {}, {"alignment": AlignmentConfig(switches=Switches.released())}, "data.views.switches"),
        ({}, {"views": None}, {}, "data.views"),
        ({}, {"views": ViewConfig(views=1)}, {}, "data.views"),
        ({}, {"clips": 2}, {}, "data.clips"),
        ({"mode": "avts"}, {"clips": 2}, {}, "data.views"),
        ({"mode": "avts"}, {"views": None}, {}, "data.clips"),
    ],
)
def test_what_does_not_fit_is_named(options, data, model, said):
    config = configuration.build(AVSAConfig, options, "task")
    with pytest.raises(ConfigError, match=said):
        config.check(dataclasses.replace(DATA, **data), dataclasses.replace(MODEL, **model))


def test_what_fits_passes():
    AVSAConfig().check(DATA, MODEL)
    AVSAConfig(mode="avc").check(dataclasses.replace(DATA, views=ViewConfig(views=1)), MODEL)
    AVSAConfig(mode="avts").check(dataclasses.replace(DATA, views=None, clips=4), MODEL)
    AVSAConfig(mode="avc").check_change(AVSAConfig())
    with pytest.raises(ConfigError, match=r"task\.mode"):
        AVSAConfig().check_change(AVSAConfig(mode="avc"))
    with pytest.raises(ConfigError, match=r"task\.temperature"):
        AVSAConfig(temperature=0.0)
