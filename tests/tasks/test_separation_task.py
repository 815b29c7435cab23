"""Training a separator: every kind of query, who learns, the losses, mean features of classes, two processes as one."""

import pytest
import torch
from task_tools import in_two_processes

from avssl.errors import ConfigError
from avssl.models.cnn14 import create_tagger
from avssl.models.config import ModelConfig
from avssl.models.folder import save_model
from avssl.models.separation_config import QueryConfig, SeparatorConfig, TaggerConfig
from avssl.models.separator_model import SeparatorModel
from avssl.models.sound_config import ClassRow, SeparatorModelConfig, TaggerModelConfig
from avssl.separation.mixing import mix_neighbours
from avssl.tasks.separation import SeparationTask
from avssl.tasks.separation_config import SeparationConfig
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

TAGGER = TaggerConfig(
    decision="frame", classes=3, channels=[4, 8], rate_hz=8000, fft=256, hop=80, bands=16, high_hz=3900
)
CLASSES = [ClassRow(name, name, number) for number, name in enumerate("abc")]
NARROW = [4, 4, 4, 4, 6, 6, 6]
KINDS = {"one_hot": 3, "soft": 3, "embedding": 8, "adaptive": 8, "shortcut": 8}
ALONE = ProcessGroup()


def make_config(kind, **options):
    query = QueryConfig(kind, KINDS[kind], hidden=16)
    separator = SeparatorConfig(query.condition_dim, channels=NARROW, rate_hz=8000, fft=256, hop=128)
    return SeparatorModelConfig(separator, query, **{"tagger": TAGGER, "classes": CLASSES, "window_s": 0.5, **options})


def make_task(kind, ranks=ALONE, model=None, **settings):
    torch.manual_seed(0)
    model = model or SeparatorModel(make_config(kind, class_features=KINDS[kind] == 8))
    model = synchronise_batch_norm(model, ranks)
    return SeparationTask(SeparationConfig(**settings), model, ranks=ranks).train()


def batch(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    audio = 0.1 * torch.randn(n, 1, 1, 4096, generator=generator)
    return {"row": torch.arange(n), "audio": audio, "drawn_class": torch.arange(n) % 3}


@pytest.mark.parametrize("kind", KINDS)
def test_what_should_learn_learns_and_nothing_else(kind):
    task = make_task(kind)
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=1e-2)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    for step in range(2):  # the shortcut's second layer starts at zero: its first gets a gradient one step later
        optimizer.zero_grad()
        task(batch(seed=step), ranks=ALONE, seed=0)["loss"].backward()
        for name, parameter in task.model.named_parameters():
            assert (parameter.grad is None) == name.startswith("tagger."), name
        optimizer.step()
    for name, value in task.model.state_dict().items():
        frozen = name.startswith("tagger.") or name == "class_features"
        if name.endswith("num_batches_tracked"):
            assert int(value) == (0 if frozen else 2), name  # and its statistics stay
        else:
            assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_is_of_the_clean_segment(kind):
    task, data = make_task(kind), batch()
    segments = data["audio"][:, 0, 0]
    with torch.no_grad():
        tags = task.model.tagger(segments)
    expected = {"one_hot": torch.eye(3)[data["drawn_class"]], "soft": tags.probabilities}.get(kind, tags.embedding)
    assert torch.equal(task.features(segments, data["drawn_class"]), expected)
    assert not task.features(segments, data["drawn_class"]).requires_grad


@pytest.mark.parametrize("loss", ["l1_wav", "l1_wav_l1_sp", "sdr"])
def test_losses(loss):
    task, data = make_task("one_hot", loss=loss), batch()
    task.model.eval()
    output = task(data, ranks=ALONE, seed=0)
    segments = data["audio"][:, 0, 0]
    mixed = mix_neighbours(segments)
    estimate = task.model(mixed.mixture, torch.eye(3)[data["drawn_class"]]).double()
    error, target = estimate - segments, segments.double()
    ratio = error.square().sum(1) / target.square().sum(1)
    decibels = 10 * (ratio + 1e-3).log10()
    expected = decibels.mean() if loss == "sdr" else error.abs().mean()
    if loss == "l1_wav_l1_sp":
        magnitudes = [
            torch.stft(x, 256, 128, window=torch.hann_window(256).double(), return_complex=True).abs()
            for x in (estimate, target)
        ]
        expected = expected + (magnitudes[0] - magnitudes[1]).abs().mean()
    assert float(output["loss"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(output["metrics"]["sdr_db"]) == pytest.approx(-float(decibels.mean()), rel=1e-3)


def test_bending_changes_what_is_learned_from():
    task, plain = make_task("soft", bend_db=6.0), make_task("soft")
    assert float(task(batch(), ranks=ALONE, seed=0)["loss"].detach()) != float(
        plain(batch(), ranks=ALONE, seed=0)["loss"].detach()
    )
    with pytest.raises(ConfigError, match="bend_db"):
        SeparationConfig(bend_db=-1.0)


def test_it_learns_to_take_one_of_two_tones():
    task = make_task("one_hot", loss="sdr", start_in_phase=True)
    t = torch.arange(4096) / 8000
    optimizer = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        hz = torch.tensor([300.0, 1000.0, 2500.0])[:, None] * (1 + 0.1 * torch.rand(3, 1, generator=generator))
        data = {"audio": 0.1 * torch.sin(2 * torch.pi * hz * t)[:, None, None], "drawn_class": torch.arange(3)}
        optimizer.zero_grad()
        output = task(data | {"row": torch.arange(3)}, ranks=ALONE, seed=0)
        output["loss"].backward()
        optimizer.step()
    assert output["metrics"]["sdr_db"] > 6  # the mixture has 0, half of it 3


def test_it_can_start_from_half_the_mixture():
    task = make_task("one_hot", start_in_phase=True)
    mixture = torch.sin(torch.arange(4096) * 0.3).repeat(3, 1)  # nothing in the highest bin, which is never put out
    with torch.no_grad():
        torch.testing.assert_close(task.model(mixture, torch.eye(3)), 0.5 * mixture, rtol=0, atol=1e-3)


def test_the_mean_features_of_each_class_are_kept():
    task = make_task("embedding")
    seen = []
    for step in range(3):
        data = batch(5, seed=step)
        output = task(data, ranks=ALONE, seed=0)
        seen.append((task.features(data["audio"][:, 0, 0], data["drawn_class"]), data["drawn_class"]))
        task.after_step([output["memory"]], ALONE)
    features, drawn = (torch.cat(parts) for parts in zip(*seen, strict=True))
    for number in range(3):
        torch.testing.assert_close(task.model.class_features[number], features[drawn == number].mean(0))
    assert task.seen.tolist() == [6, 6, 3]
    assert "seen" in task.state_dict() and "model.class_features" in task.state_dict()


def test_the_encoder_comes_from_its_folder_and_must_be_the_one_described(tmp_path):
    torch.manual_seed(5)
    tagger = create_tagger(TAGGER)
    save_model(tmp_path, tagger, TaggerModelConfig(TAGGER, CLASSES), card="")
    task = make_task("soft", encoder=str(tmp_path))
    for name, value in tagger.state_dict().items():
        assert torch.equal(task.model.tagger.state_dict()[name], value)
    clips = TaggerConfig(**{**vars(TAGGER), "decision": "clip"})
    with pytest.raises(ConfigError, match=r"is not what model.tagger describes \(its settings differ"):
        make_task("soft", model=SeparatorModel(make_config("soft", tagger=clips)), encoder=str(tmp_path))


def test_the_two_tower_models_embedding_of_the_segment_can_be_the_query():
    towers = ModelConfig.from_dict(
        {
            "audio": {"name": "tiny_audio"},
            "audio_input": {
                "rate_hz": 24000, "duration_s": 0.5, "channels": 1,
                "front_end": {"name": "log_mel", "kwargs": {"fft": 1024, "hop": 480, "bands": 32}},
            },
            "head": {"hidden": [], "dim": 8},
        }
    )  # fmt: skip
    config = make_config("shortcut", tagger=None, two_tower=towers, source="two_tower")
    task = make_task("shortcut", model=SeparatorModel(config))
    data = batch()
    features = task.features(data["audio"][:, 0, 0], data["drawn_class"])
    assert features.shape == (4, 8)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(4))
    task(data, ranks=ALONE, seed=0)["loss"].backward()
    assert all(p.grad is None for p in task.model.two_tower.parameters())
    assert all(p.grad is not None for p in task.model.query.parameters())


def _means(ranks):
    task = make_task("embedding", ranks)
    data = batch(6)
    if ranks.size > 1:
        part = slice(0, 2) if ranks.rank == 0 else slice(2, 6)
        data = {key: value[part] for key, value in data.items()}
    output = task(data, ranks=ranks, seed=0)
    task.after_step([output["memory"]], ranks)
    return {"class_features": task.model.class_features, "loss": output["metrics"]["loss"]}


def test_two_processes_agree():
    """Mixtures differ, as segments are mixed within a process; what is kept of the classes does not."""
    alone, found = _means(ALONE), in_two_processes(_means)
    assert torch.equal(found[0]["loss"], found[1]["loss"])
    for one in found:
        torch.testing.assert_close(one["class_features"], alone["class_features"])


def test_refuses_what_cannot_be():
    for wrong in ({"sources": 1}, {"loudness_db": (3.0, -3.0)}, {"peak": 0.0}):
        with pytest.raises(ConfigError, match="task"):
            SeparationConfig(**wrong)
