"""The loop on real shards: run folder, accumulation, faults, refusals."""

import json
import math
import shutil

import pytest
import torch
from training_tools import make_config, metrics_of

import avssl
from avssl import rng
from avssl.data.loader import Loader
from avssl.errors import BudgetError, ConfigError, ShardError
from avssl.media.encode import write_video
from avssl.shards import ShardSet
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.training.loop import Trainer


def train(tree, **changes):
    said = []
    trainer = Trainer(make_config(tree, **changes), say=said.append)
    return trainer.run(), trainer, said


def test_a_run_leaves_everything_behind(tree, tmp_path):
    outcome, trainer, said = train(tree)
    assert outcome == "finished"
    folder = tmp_path / "run"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert records[-1]["pass"] == pytest.approx(64 / 24, rel=1e-5)
    for record in records:
        assert record["loss"] == pytest.approx((record["loss_v2a"] + record["loss_a2v"]) / 2)
        assert 0 <= record["data_wait_percent"] <= 100
        assert record["clips_per_s"] == pytest.approx(8000 / record["step_ms"], rel=0.01)
        assert record["skipped"] == record["nonfinite"] == 0
    lines = (folder / "rows.jsonl").read_text().splitlines()
    first_pass = [row for line in lines[:3] for row in json.loads(line)["rows"]]
    assert sorted(first_pass) == list(range(24))
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "best.pt",
        "step-00000006.pt",
        "step-00000008.pt",
    }
    model = avssl.load(str(folder / "model"))
    assert model.config.head.dim == 32
    description = json.loads((folder / "model" / "config.json").read_text())
    assert description["trained"]["steps"] == 8
    for key, value in trainer.task.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[key], value)
    assert any("24 of 24 rows" in line for line in said)

    outcome, _, said = train(tree)
    assert outcome == "finished"
    assert "all 8 steps are done" in said[-1]


def test_the_bank_starts_and_the_loss_falls(tree):
    _, trainer, _ = train(tree, **{"run.steps": 40, "optim.lr": 1e-3, "run.log_rows": False})
    losses = [record["loss"] for record in metrics_of(trainer.folder.path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


@pytest.mark.parametrize("targets", ["bank", "batch"])
def test_micro_batches_add_up_to_their_batch(tree, targets, tmp_path):
    """Two micro-batches of four: their gradients, taken by hand and averaged, are those of the step."""
    changes = {"task.targets": targets, "task.loss": "softmax", "run.accumulate": 2, "run.steps": 1}
    trainer = Trainer(make_config(tree, **changes), say=lambda line: None)
    before = [parameter.detach().clone() for parameter in trainer.task.parameters()]
    trainer.run()
    rows = [json.loads(line)["rows"] for line in trainer.folder.rows.read_text().splitlines()]
    assert len(rows) == 1 and len(rows[0]) == 8

    by_hand = Trainer(make_config(tree, **changes, **{"run.dir": str(tmp_path / "other")}), say=lambda line: None)
    losses = []
    for number in range(2):
        batch = next(by_hand.loader)
        assert len(batch["row"]) == 4
        output = by_hand.learner.forward(batch, rng.step_seed(0, 2 + number))
        (output["loss"] / 2).backward()
        losses.append(output["loss"].item())
    by_hand.learner.optimizer.step()
    for parameter, start, other in zip(trainer.task.parameters(), before, by_hand.task.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6)
        assert not torch.equal(parameter, start)
    assert metrics_of(trainer.folder.path)[0]["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_a_loss_that_is_not_finite_is_skipped_without_a_trace(tree, monkeypatch):
    """The third batch carries a NaN: no parameter, running statistic or bank row may see it."""
    clean = Loader.__next__
    handed = []

    def faulty(self):
        batch = clean(self)
        handed.append(batch["row"].tolist())
        if len(handed) == 3:
            batch["audio"][0, 0, 0, 100] = math.nan
        return batch

    monkeypatch.setattr(Loader, "__next__", faulty)
    trainer = Trainer(make_config(tree), say=(said := []).append)
    states = []
    trainer.run(lambda: states.append({k: v.clone() for k, v in trainer.task.state_dict().items()}))
    assert all(torch.equal(states[1][key], states[2][key]) for key in states[1])
    assert not all(torch.equal(states[2][key], states[3][key]) for key in states[2])
    assert all(torch.isfinite(value).all() for value in states[-1].values())
    records = metrics_of(trainer.folder.path)
    assert [record["nonfinite"] for record in records] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert records[2]["loss"] is None
    assert any(f"step 3: the loss is not finite; step skipped; rows {handed[2]}" in line for line in said)


def test_too_many_of_them_end_the_run(tree):
    with pytest.raises(BudgetError, match=r"4 steps were not finite, more than run.max_nonfinite 3"):
        train(tree, **{"optim.lr": 1e30, "run.max_nonfinite": 3})


def test_clipping_bounds_the_gradient(tree):
    _, trainer, _ = train(tree, **{"optim.clip_norm": 0.5, "run.steps": 2})
    total = metrics_of(trainer.folder.path)[0]["grad_norm"]
    assert total > 0.5  # what is logged is the norm before clipping


def test_bf16_keeps_losses_banks_and_parameters_in_float32(tree):
    _, trainer, _ = train(tree, **{"run.precision": "bf16", "run.steps": 2})
    assert {value.dtype for value in trainer.task.state_dict().values()} == {torch.float32, torch.int64}
    full = train(tree, **{"run.dir": tree["run"]["dir"] + "2", "run.steps": 2})[1]
    for ours, theirs in zip(metrics_of(trainer.folder.path), metrics_of(full.folder.path), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=0.05)
        assert ours["loss"] != theirs["loss"]


def test_channels_last_changes_the_layout_not_the_loss(tree):
    plain = train(tree, **{"run.steps": 2})[1]
    other = train(tree, **{"run.steps": 2, "run.channels_last": True, "run.dir": tree["run"]["dir"] + "2"})[1]
    layouts = [p.is_contiguous(memory_format=torch.channels_last_3d) for p in other.task.parameters() if p.dim() == 5]
    assert layouts and all(layouts)
    for ours, theirs in zip(metrics_of(plain.folder.path), metrics_of(other.folder.path), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


def test_passes_count_rows(tree):
    _, trainer, _ = train(tree, **{"run.steps": None, "run.passes": 0.5})
    assert trainer.total_steps == 2  # 12 of 24 rows in steps of 8


def test_rows_without_sound_are_left_out_but_keep_their_numbers(tree, tmp_path, debug_shards):
    """Two clips have no sound: 24 usable rows of 26, banks over all of them."""
    frames = torch.randint(0, 255, (32, 64, 64, 3), dtype=torch.uint8).numpy()
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "silent.mp4", frames, 16, audio=None, audio_rate_hz=24000)
    shutil.copytree(debug_shards.parent / "world", tmp_path / "m")
    (tmp_path / "m" / "world.jsonl").unlink()
    build(list_sources(tmp_path), tmp_path / "shards", BuildOptions(clip_s=2.0, short_side_px=64))
    silent = set((~ShardSet.open(tmp_path / "shards").has_audio).nonzero()[0].tolist())
    assert len(silent) == 2

    _, trainer, said = train(tree, **{"data.shards": [str(tmp_path / "shards")]})
    assert any("24 of 26 rows" in line for line in said)
    assert len(trainer.task.audio_bank.memory) == 26
    seen = {row for line in trainer.folder.rows.read_text().splitlines() for row in json.loads(line)["rows"]}
    assert len(seen) == 24 and not seen & silent


def test_an_unusable_clip_shrinks_its_batch_and_is_named(tree, debug_shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(debug_shards, folder)
    record = ShardSet.open(folder).record(5)
    offset, size = record["members"]["mp4"]
    with sorted(folder.glob("*.tar"))[record["shard"]].open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * size)
    outcome, trainer, said = train(tree, **{"data.shards": [str(folder)]})
    assert outcome == "finished"
    sizes = [len(json.loads(line)["rows"]) for line in trainer.folder.rows.read_text().splitlines()]
    missing = sizes.count(7)
    assert missing in (2, 3) and sizes.count(8) == 8 - missing  # 64 samples of 24 rows
    assert metrics_of(trainer.folder.path)[-1]["skipped"] == missing
    assert sum("skipped row 5" in line for line in said) == missing


def test_other_shards_and_damaged_ones_are_refused(tree, debug_shards, tmp_path):
    train(tree, **{"run.steps": 2})
    other = tmp_path / "other"
    build(list_sources(debug_shards.parent / "world"), other, BuildOptions(clip_s=1.0, short_side_px=64))
    with pytest.raises(ShardError, match="manifest_sha256 was"):
        train(tree, **{"data.shards": [str(other)], "run.steps": 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run.steps": None}, "run.steps and run.passes: give exactly one"),
        ({"data.audio.rate_hz": 16000}, "data.audio.rate_hz is 16000, but the model is declared for"),
        ({"data.video": None}, "data.video and model.video: one of them is null"),
        ({"data.audio.optional": True}, "set data.audio.optional to false"),
        ({"run.accumulate": 3}, "not a multiple of run.accumulate"),
        ({"data.shards": []}, "data.shards: empty"),
        ({"task.name": "xyz"}, "task.name is 'xyz', but the tasks are: "),
        ({"task.temperature": 0.0}, "task.temperature is 0.0"),
        ({"run.devices": 0}, "run.devices is 0, but must be positive"),
    ],
)
def test_impossible_configs_are_refused_by_key(tree, changes, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        make_config(tree, **changes)
