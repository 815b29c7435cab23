"""The YAMLs of eval/avsa_*: each run through the command, with little of everything; what is refused."""

import csv
import json
from pathlib import Path

import pytest
from scene_shards import MAP_FPS, SCENES

from avssl import config as configuration
from avssl.cli import evaluate
from avssl.evaluation.protocol import EvalConfig

FOLDER = Path(__file__).parents[2] / "eval"
BIN = sorted(path.name for path in FOLDER.glob("avsa_*.yaml") if "segmentation" not in path.name)
MAPS = sorted(path.name for path in FOLDER.glob("avsa_*.yaml") if "segmentation" in path.name)
CLASSES = ["background", *SCENES.class_names()]


def run(capsys, name, model, shards, out, **changes):
    options = {
        "model": model, "out": out, "protocol.scenes.train": [str(shards)], "protocol.scenes.test": [str(shards)],
        "protocol.scenes.train_draws": 1, "protocol.scenes.batch_size": 3, "protocol.scenes.workers": 0,
        "protocol.scenes.sample_by": "row", "protocol.fit.passes": 1, "protocol.fit.batch_size": 3,
    } | changes  # fmt: skip
    arguments = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    with pytest.raises(SystemExit) as ended:
        evaluate.main(["--config", str(FOLDER / name), *arguments])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def result(out):
    return json.loads((out / "results.json").read_text())


def test_there_are_recipes_for_every_protocol():
    assert len(BIN) == 7 and len(MAPS) == 3
    for name in BIN + MAPS:
        tree = configuration.read(FOLDER / name)
        config = configuration.build(EvalConfig, tree)
        assert config.name == Path(name).stem and config.out == f"runs/eval/{config.name}"
        views = 1 if "1view" in name else 4
        assert config.protocol.scenes.views.views == views and config.protocol.scenes.views.flip == 0
        assert ("transformer" in name) == getattr(config.protocol, "transformer", False)
    published = configuration.build(EvalConfig, configuration.read(FOLDER / "avsa_segmentation_video.yaml")).protocol
    assert len(published.classes) == len(set(published.classes)) == 32


@pytest.mark.parametrize("name", BIN)
def test_a_recipe_runs(capsys, tmp_path, avsa_model, scene_shards, name):
    code, said = run(capsys, name, avsa_model, scene_shards, tmp_path, **{"protocol.page_clips": 0})
    assert code == 0, said
    found = result(tmp_path)
    assert found["counts"] == {"items": 6, "skipped": 0} and found["skipped"] == []
    assert set(found["chance"]) == set(found["metrics"])
    assert found["extra"]["switches"]["rotation"] == "corrected"
    assert found["extra"]["pairs"] == (6 if "yaw" in name else 12)
    if "avc" not in name:
        table = list(csv.DictReader((tmp_path / "by_angle.csv").open()))
        assert sum(int(row["draws"]) for row in table) == 6


def test_towers_can_be_tuned(capsys, tmp_path, avsa_model, scene_shards):
    more = {"protocol.tune": "true", "protocol.page_clips": 0, "protocol.fit.lr": 1e-3, "protocol.fit.passes": 2}
    name = "avsa_bin_4views_transformer.yaml"
    code, said = run(capsys, name, avsa_model, scene_shards, tmp_path / "tuned", **more)
    assert code == 0, said
    code, said = run(capsys, name, avsa_model, scene_shards, tmp_path / "again", **more)
    assert code == 0 and result(tmp_path / "tuned")["metrics"] == result(tmp_path / "again")["metrics"]


def test_a_model_without_transformers_is_refused_in_one_sentence(capsys, tmp_path, scene_shards):
    from scene_shards import write_model

    model = write_model(tmp_path / "avc", depth=None)
    code, said = run(capsys, "avsa_bin_4views_transformer.yaml", model, scene_shards, tmp_path / "out")
    assert code == 1 and "model.alignment.depth is null" in said
    assert not (tmp_path / "out" / "results.json").exists()


def maps_options(maps, **changes):
    return {
        "protocol.maps": maps, "protocol.map_fps": MAP_FPS, "protocol.classes": CLASSES,
        "protocol.lateral": 32, "protocol.width": 32,
    } | changes  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_a_segmentation_recipe_runs(capsys, tmp_path, avsa_model, scene_shards, scene_maps, name):
    code, said = run(capsys, name, avsa_model, scene_shards, tmp_path, **maps_options(scene_maps))
    assert code == 0, said
    found = result(tmp_path)
    assert found["counts"] == {"items": 6 * 4, "skipped": 0}
    assert set(found["metrics"]) == {"pixel_accuracy", "dataset_miou", "image_miou"}
    assert [row["class"] for row in found["tables"]["by_class"]] == CLASSES
    assert found["extra"]["setting"] == configuration.read(FOLDER / name)["protocol"]["setting"]


def test_missing_maps_are_counted_and_named(capsys, tmp_path, avsa_model, scene_shards, scene_maps):
    import shutil

    maps = tmp_path / "maps"
    shutil.copytree(scene_maps, maps)
    shutil.rmtree(maps / "clips" / "000002")
    options = maps_options(maps)
    code, said = run(capsys, MAPS[0], avsa_model, scene_shards, tmp_path / "out", **options)
    assert code == 1 and "000002" in said and "no such target map" in said and "--allow_missing" in said
    code, said = run(capsys, MAPS[0], avsa_model, scene_shards, tmp_path / "out", allow_missing=4, **options)
    assert code == 0 and result(tmp_path / "out")["counts"]["items"] == 5 * 4
    shutil.rmtree(maps / "clips")
    code, said = run(capsys, MAPS[0], avsa_model, scene_shards, tmp_path / "none", allow_missing=99, **options)
    assert code == 1 and "no training view has a map" in said
