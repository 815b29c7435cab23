"""`avssl-finetune` end to end: the model folder, the report, refusals, and each way to train."""

import csv
import json

import numpy as np
import pytest
import torch
from coloured_clips import write_coloured

import avssl
from avssl.cli import embed, evaluate, finetune
from avssl.errors import ModelError
from avssl.models.folder import load_network

SMALL = ["--fit.workers", "0", "--fit.epochs", "2", "--fit.clips", "2", "--fit.test_clips", "2", "--device", "cpu"]


def call(*words, code=0, main=finetune.main):
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    assert caught.value.code == code


@pytest.fixture(scope="module")
def trained(tmp_path_factory, coloured, tiny_model):
    out = tmp_path_factory.mktemp("trained") / "mine"
    call(coloured, "-o", out, "--model", tiny_model, "--device", "cpu", "--folds", "4")
    return out


def test_what_is_written(trained, coloured):
    results = json.loads((trained / "results.json").read_text())
    assert results["counts"] == {"files": 12, "judged": 12, "not_judged": 0, "skipped": 0, "classes": 3}
    assert results["metrics"]["accuracy"] == 1.0 and results["metrics"]["nearest_mean_accuracy"] > 0.6
    assert results["chance"]["accuracy"] == pytest.approx(1 / 3)
    assert results["modalities"] == ["video", "audio"] and results["classes"] == ["blue", "green", "red"]
    assert results["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    for key in ("environment", "config", "seed", "model", "skipped", "wall_s"):
        assert key in results
    rows = list(csv.DictReader((trained / "predictions.csv").open()))
    assert len(rows) == 12 and all(row["truth"] == row["answer"] for row in rows)
    page = (trained / "report.html").read_text()
    assert "100.0 %" in page and "There are none." in page and "http" not in page
    description = json.loads((trained / "config.json").read_text())
    assert description["kind"] == "classifier" and description["finetuned"]["counts"]["files"] == 12


def test_the_folder_classifies_embeds_and_is_no_other_kind(trained, coloured, tiny_model, tmp_path):
    model = avssl.load(trained)
    found = model.classify_file(coloured / "red" / "0.mp4")
    assert next(iter(found)) == "red" and sum(found.values()) == pytest.approx(1) and set(found) == set(model.classes)
    frames = np.full((2, 8, 64, 64, 3), (40, 50, 210), np.uint8)
    chances = model.classify_video(frames)
    assert chances.shape == (2, 3) and torch.allclose(chances.sum(1), torch.ones(2))
    assert model.classify_audio(np.zeros(24000, np.float32), 24000).shape == (3,)
    base = avssl.load(tiny_model)
    assert torch.equal(model.encode_video(frames), base.encode_video(frames))
    embed_out = tmp_path / "e.npz"
    call(coloured / "red", "-o", embed_out, "--model", trained, "--layers", "video.logits", main=embed.main)
    with np.load(embed_out) as rows:
        assert rows["video"].shape[1] == 16 and rows["video.logits"].shape[1] == 3
    with pytest.raises(ModelError, match="'two_tower' is needed"):
        load_network(trained, "two_tower")


def test_predict(trained, tmp_path, capsys):
    clip = write_coloured(tmp_path / "new.mp4", "green", seed=77)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    call("predict", clip, "--model", trained, "--device", "cpu")
    assert "new.mp4: green" in capsys.readouterr().out
    call("predict", clip, tmp_path / "bad.mp4", "--model", trained, "--json", "--device", "cpu", code=1)
    answer = json.loads(capsys.readouterr().out)
    assert max(answer["files"][0]["probabilities"], key=answer["files"][0]["probabilities"].get) == "green"
    assert len(answer["failed"]) == 1


def test_avssl_eval_asks_it_about_other_files(trained, tmp_path, capsys):
    for colour in ("red", "blue"):
        write_coloured(tmp_path / "new" / colour / "1.mp4", colour, seed=55)
    words = ["--protocol.name", "classify", "--protocol.data", tmp_path / "new", "--model", trained]
    words += ["--name", "new", "--out", tmp_path / "out"]
    call(*words, main=evaluate.main)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["metrics"]["accuracy"] == 1.0 and results["counts"]["items"] == 2
    assert results["tables"]["confusion"][0] == {"truth": "blue", "blue": 1, "green": 0, "red": 0}
    (tmp_path / "new" / "red" / "torn.mp4").write_bytes(b"no video")
    call(*words, main=evaluate.main, code=1)
    assert "1 of 3 items could not be used" in capsys.readouterr().err
    write_coloured(tmp_path / "new" / "pink" / "1.mp4", "red")
    call(*words, main=evaluate.main, code=2)
    assert "the class 'pink', which the classifier does not know" in capsys.readouterr().err


def test_other_heads_decode_nothing_again(trained, coloured, tiny_model, tmp_path, monkeypatch):
    from avssl.embedding import run as embedding_run

    monkeypatch.setattr(embedding_run, "_embed_unit", None)
    words = ["--model", tiny_model, "--device", "cpu", "--head", "cosine"]
    call(coloured, "-o", tmp_path / "other", "--features", trained / "features.npz", *words)
    assert (tmp_path / "other" / "config.json").exists()


def test_a_model_there_is_not_overwritten_unasked(trained, coloured, tiny_model, capsys):
    before = (trained / "model.safetensors").read_bytes()
    call(coloured, "-o", trained, "--model", tiny_model, "--device", "cpu", code=2)
    assert "holds a model already" in capsys.readouterr().err
    assert (trained / "model.safetensors").read_bytes() == before


def test_bad_files_are_named_and_names_are_escaped(coloured, tiny_model, tmp_path, capsys):
    name = "<script>alert(1)</script> & red"
    rows = [
        f"{coloured}/{colour}/{n}.mp4,{colour if colour != 'red' else name}"
        for colour in ("red", "green")
        for n in range(3)
    ]
    rows.append(f"{coloured}/blue/0.mp4,green")  # a wrong label that the page shows
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    rows += [f"{tmp_path}/torn.mp4,green", f"{tmp_path}/gone.mp4,green"]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    out = tmp_path / "out"
    call(tmp_path / "list.csv", "-o", out, "--model", tiny_model, "--json", "--device", "cpu", "--folds", "3", code=1)
    results = json.loads(capsys.readouterr().out)
    causes = {row["item"].rsplit("/", 1)[1]: row["cause"] for row in results["skipped"]}
    assert set(causes) == {"torn.mp4", "gone.mp4"} and causes["gone.mp4"] == "no such file"
    page = (out / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "torn.mp4" in page


def test_a_class_without_a_usable_file_is_refused(coloured, tiny_model, tmp_path, capsys):
    (tmp_path / "list.csv").write_text(
        f"path,label\n{coloured}/red/0.mp4,red\n{coloured}/red/1.mp4,red\ngone.mp4,lost\n"
    )
    call(tmp_path / "list.csv", "-o", tmp_path / "out", "--model", tiny_model, "--device", "cpu", code=2)
    assert "class 'lost': none of its files can be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_given_split_is_kept(coloured, tiny_model, tmp_path):
    rows = [
        f"{coloured}/{c}/{n}.mp4,{c},{'test' if n == 3 else 'train'}"
        for c in ("red", "green", "blue")
        for n in range(4)
    ]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    call(tmp_path / "list.csv", "-o", tmp_path / "o", "--model", tiny_model, "--device", "cpu", "--head", "cosine")
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert results["counts"]["judged"] == 3 and results["judged"] == "the test files of the given split"
    judged = {row["path"] for row in csv.DictReader((tmp_path / "o" / "predictions.csv").open())}
    assert all(path.endswith("3.mp4") for path in judged)


@pytest.mark.parametrize(
    ("words", "changed"),
    [
        (["--train", "full"], {"backbone.video_tower.conv1", "backbone.audio_tower.conv1", "heads"}),
        (["--train", "partial", "--modality", "video"], {"backbone.video_tower.conv5x", "heads"}),
        (["--adapter_rank", "2", "--modality", "audio"], {"adapters", "heads"}),
        (["--head", "moment", "--moment.width", "32", "--modality", "video"], {"heads"}),
    ],
)
def test_what_is_trained_changes_and_nothing_else(words, changed, coloured, tiny_model, tmp_path):
    out = tmp_path / "out"
    call(
        coloured,
        "-o",
        out,
        "--model",
        tiny_model,
        *words,
        *SMALL,
        "--folds",
        "2",
        "--fit.lr",
        "3e-3",
        "--fit.patience",
        "9",
    )
    net, _ = load_network(out)
    base, _ = load_network(tiny_model)
    state, before = net.state_dict(), {f"backbone.{key}": value for key, value in base.state_dict().items()}
    results = json.loads((out / "results.json").read_text())
    assert results["metrics"]["accuracy"] >= results["metrics"]["frozen_accuracy"] - 1e-9
    assert len(results["training"]["loss"]) == 2 and not (out / "maps").exists()
    moved = {key for key, value in before.items() if not torch.equal(state[key], value)}
    assert all(any(key.startswith(prefix) for prefix in _prefixes(changed)) for key in moved)
    found = avssl.load(out).classify_file(coloured / "blue" / "1.mp4")
    assert set(found) == {"red", "green", "blue"}


def _prefixes(changed):
    return {".".join(name.split(".")[:2]) if name.endswith("conv1") else name for name in changed}
