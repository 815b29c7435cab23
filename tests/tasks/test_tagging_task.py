"""Training a tagger: the loss, mixup, two processes as one, and that it learns."""

import pytest
import torch
from task_tools import in_two_processes

from avssl.data.config import AudioSpec, DataConfig
from avssl.errors import ConfigError
from avssl.models.cnn14 import create_tagger
from avssl.models.separation_config import TaggerConfig
from avssl.models.sound_config import ClassRow, TaggerModelConfig
from avssl.tasks.tagging import TaggingTask, mixup
from avssl.tasks.tagging_config import TaggingConfig
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

NET = TaggerConfig(classes=3, channels=[4, 8], rate_hz=8000, fft=256, hop=80, bands=16, high_hz=3900, dropout=0.0)


def make_task(ranks=None, mix=0.0):
    torch.manual_seed(0)
    net = synchronise_batch_norm(create_tagger(NET), ranks or ProcessGroup())
    return TaggingTask(TaggingConfig(mixup=mix), net, ranks=ranks or ProcessGroup())


def batch(n=6):
    """Each class is a tone of its own in noise."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.arange(n) % 3
    tones = torch.sin(torch.arange(4000) * (0.2 + 0.5 * numbers[:, None]))
    audio = 0.1 * tones + 0.01 * torch.randn(n, 4000, generator=generator)
    return {
        "row": torch.arange(n),
        "audio": audio[:, None, None],
        "target": torch.nn.functional.one_hot(numbers, 3).float(),
    }


def test_the_loss_is_the_binary_cross_entropy_of_every_class():
    task = make_task().eval()
    data = batch()
    output = task(data, ranks=ProcessGroup(), seed=0)
    p = task.model(data["audio"][:, 0, 0]).probabilities.double()
    expected = -(data["target"] * p.log() + (1 - data["target"]) * (1 - p).log()).mean()
    assert float(output["loss"]) == pytest.approx(float(expected), rel=1e-5)
    right = (p.argmax(1) == torch.arange(6) % 3).double().mean()
    assert float(output["metrics"]["first"]) == pytest.approx(float(right))


def test_mixup_mixes_sounds_and_targets_alike():
    torch.manual_seed(0)
    waveform, target = torch.randn(50, 8), torch.eye(50)
    mixed, targets = mixup(waveform, target, 1.0)
    torch.testing.assert_close(mixed, targets @ waveform)
    share = targets.diagonal()
    assert ((share > 0) & (share < 1)).all() and 0.4 < share.mean() < 0.6 and share.std() > 0.2  # Beta(1, 1)
    torch.testing.assert_close(targets.sum(1), torch.ones(50))


def test_it_learns():
    task, data = make_task().train(), batch(12)
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-2)
    torch.manual_seed(1)
    for _ in range(60):
        optimizer.zero_grad()
        task(data, ranks=ProcessGroup(), seed=0)["loss"].backward()
        optimizer.step()
    metrics = task.eval()(data, ranks=ProcessGroup(), seed=0)["metrics"]
    assert metrics["first"] == 1.0 and metrics["loss"] < 0.3


def _gradients(ranks):
    torch.manual_seed(0)
    task, data = make_task(ranks).eval(), batch(5)
    if ranks.size > 1:
        part = slice(0, 2) if ranks.rank == 0 else slice(2, 5)
        data = {key: value[part] for key, value in data.items()}
    output = task(data, ranks=ranks, seed=0)
    output["loss"].backward()
    grads = {name: ranks.sum(p.grad) / ranks.size for name, p in task.named_parameters()}
    return {"loss": output["metrics"]["loss"], **grads}


def test_two_processes_are_as_one():
    alone = _gradients(ProcessGroup())
    for found in in_two_processes(_gradients):
        for name, value in alone.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video": None, "labels": None}, "set data.labels"),
        ({"labels": "label"}, "set data.video to null"),
        (
            {"video": None, "labels": "label", "audio": AudioSpec(16000)},
            "is 16000, the model's is 8000",
        ),
        ({"video": None, "labels": "label", "audio": AudioSpec(8000, channels=2)}, "data.audio.channels to 1"),
    ],
)
def test_refuses_data_that_do_not_fit(options, message):
    model = TaggerModelConfig(NET, [ClassRow(name, name, number) for number, name in enumerate("abc")])
    data = DataConfig(shards=["x"], **{"audio": AudioSpec(8000), **options})
    with pytest.raises(ConfigError, match=message):
        TaggingConfig().check(data, model)
