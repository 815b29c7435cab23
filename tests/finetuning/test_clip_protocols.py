"""`finetune` and `linear_stages` over official lists at debug size: scores, refusals, resuming, what stays frozen."""

import json
import shutil

import pytest
import torch
import yaml
from coloured_clips import write_coloured

from avssl.cli import evaluate
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.datasets import read_folds
from avssl.finetuning import protocol
from avssl.finetuning.decoded import DecodedClips
from avssl.finetuning.stage_probes import StageProbes
from avssl.models.registry import create_tower

FIT = {
    "warmup_epochs": 1,
    "epochs": 2,
    "clips": 2,
    "batch_size": 4,
    "lr": 3e-3,
    "test_clips": 2,
    "workers": 0,
    "patience": None,
    "frames": 4,
    "size_px": 48,
}


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    """Two classes of three groups in UCF101's layout; the official lists swap the group that is tested."""
    root = tmp_path_factory.mktemp("ucf")
    (root / "lists").mkdir()
    names = {"Red": "red", "Blue": "blue"}
    for place, (label, colour) in enumerate(names.items()):
        for group in (1, 2, 3):
            for clip in (1, 2):
                name = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                seed = 100 * place + 10 * group + clip
                write_coloured((root / name).with_suffix(".mp4"), colour, seed=seed, duration_s=0.8, sound=False)
                (root / name).with_suffix(".mp4").rename(root / name)
    for fold in (1, 2, 3):
        sides = {"trainlist": [], "testlist": []}
        for number, label in enumerate(names, 1):
            for group in (1, 2, 3):
                for clip in (1, 2):
                    line = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                    if group == fold:
                        sides["testlist"].append(line)
                    else:
                        sides["trainlist"].append(f"{line} {number}")
        for side, lines in sides.items():
            (root / "lists" / f"{side}0{fold}.txt").write_text("\r\n".join(lines) + "\n")
    return root


def recipe(tmp_path, ucf, model, **changes):
    tree = {
        "name": "debug",
        "out": str(tmp_path / "out"),
        "model": str(model),
        "protocol": {
            "name": "finetune",
            "data": {"kind": "ucf101", "root": str(ucf), "lists": str(ucf / "lists"), "fold": 1},
            "fit": dict(FIT),
        },
    }
    for key, value in changes.items():
        section = tree
        *path, last = key.split(".")
        for name in path:
            section = section[name]
        section[last] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def call(path, *words, code=0):
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["--config", str(path), *words])
    assert caught.value.code == code


def results_of(tmp_path):
    return json.loads((tmp_path / "out" / "results.json").read_text())


def test_three_folds_and_going_on_after_an_interruption(ucf, tiny_model, tmp_path, monkeypatch):
    path = recipe(tmp_path, ucf, tiny_model, **{"protocol.data.fold": None})
    real, seen = protocol._measured, []

    def interrupted(config, fold, *rest):
        seen.append(fold.name)
        if fold.name == "3" and len(seen) == 3:
            raise KeyboardInterrupt
        return real(config, fold, *rest)

    monkeypatch.setattr(protocol, "_measured", interrupted)
    call(path, code=130)
    assert not (tmp_path / "out" / "results.json").exists()
    call(path)
    assert seen == ["1", "2", "3", "3"]
    results = results_of(tmp_path)
    assert [row["fold"] for row in results["tables"]["folds"]] == ["1", "2", "3"]
    assert results["metrics"]["accuracy"] > 0.8 and results["metrics"]["accuracy_std"] >= 0
    assert results["chance"]["accuracy"] == 0.5 and results["counts"] == {"items": 12, "skipped": 0}
    call(path, "--seed", "1", "--protocol.data.fold", "1")
    assert seen[-1] == "1"  # other settings take nothing that was kept


def test_every_stage_gets_a_classifier(ucf, tiny_model, tmp_path):
    stages = {"conv2x": 3, "conv5x": 2}
    path = recipe(tmp_path, ucf, tiny_model, **{"protocol.name": "linear_stages", "protocol.stages": stages})
    call(path)
    metrics = results_of(tmp_path)["metrics"]
    assert metrics["best_stage_accuracy"] == max(metrics["conv2x_accuracy"], metrics["conv5x_accuracy"]) > 0.7
    call(path, "--protocol.stages", "{conv9x: 2}", code=2)


def test_missing_and_unreadable_files_refuse_the_score(ucf, tiny_model, tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    for source in (ucf / "lists").iterdir():
        (lists / source.name).write_text(source.read_text())
    with (lists / "testlist01.txt").open("a") as file:
        file.write("Red/v_Red_g01_c09.avi\n")
    path = recipe(tmp_path, ucf, tiny_model, **{"protocol.data.lists": str(lists)})
    call(path, code=1)
    assert "1 of 13 items could not be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / "folds").exists()  # refused before anything was trained
    call(path, "--allow_missing", "1")
    assert results_of(tmp_path)["skipped"][0]["cause"] == "no such file"


def test_a_torn_file_stops_training_after_its_first_epoch(ucf, tiny_model, tmp_path, capsys, monkeypatch):
    root = tmp_path / "copy"
    shutil.copytree(ucf, root)
    (root / "Red" / "v_Red_g02_c01.avi").write_bytes(b"no video")
    epochs = []
    real = DecodedClips.train
    monkeypatch.setattr(DecodedClips, "train", lambda *given: epochs.append(1) or real(*given))
    call(recipe(tmp_path, root, tiny_model), code=1)
    err = capsys.readouterr().err
    assert "1 of 12 items could not be used" in err and "v_Red_g02_c01.avi" in err and len(epochs) == 1
    call(recipe(tmp_path, root, tiny_model), "--allow_missing", "1")
    assert results_of(tmp_path)["counts"] == {"items": 11, "skipped": 1}


def test_a_frozen_tower_is_frozen():
    torch.manual_seed(0)
    tower = create_tower("video", "tiny_video")
    x = torch.randn(3, 3, 4, 32, 32)
    probes = StageProbes(tower, {"conv2x": 2, "conv3x": 2}, 5, x[:1]).train()
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    logits = probes(x)
    assert logits.shape == (3, 2, 5)
    logits.square().sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())
    assert all(parameter.grad is None for parameter in tower.parameters())
    pooled = torch.nn.functional.adaptive_max_pool3d(tower.feature_stages(x)["conv3x"], (1, 2, 2)).flatten(1)
    probes.eval()
    torch.testing.assert_close(probes(x)[:, 1], probes.probes["conv3x"][1:](pooled))


def test_kinetics_lists(tmp_path):
    lists = tmp_path / "annotations"
    for name, ids in {"train": ["a", "b"], "validate": ["c"]}.items():
        lists.mkdir(exist_ok=True)
        rows = "".join(f"riding a bike,{one},10,20,{name}\n" for one in ids)
        (lists / f"{name}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    (tmp_path / "train" / "riding a bike").mkdir(parents=True)
    (tmp_path / "train" / "riding a bike" / "a_000010_000020.mp4").touch()
    (fold,) = read_folds(DatasetConfig(str(tmp_path), "kinetics", str(lists)))
    assert [item.path.is_file() for item in fold.train] == [True, False]
    assert fold.test[0].labels == ("riding a bike",) and fold.test[0].path.name == "c_000010_000020.mp4"
