"""The protocol `frozen`, on tables whose right answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import average_precision_score

from avssl.errors import AvsslError, ConfigError
from avssl.evaluation.classifiers import class_scores
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.frozen import run
from avssl.evaluation.frozen_config import FrozenConfig
from avssl.evaluation.protocol import EvalConfig
from avssl.evaluation.results import write_results

KINDS = ("nearest_mean", "knn", "logistic", "svm")


def table_of(folder: Path, vectors: dict[str, list[list[float]]], name="table.npz") -> Path:
    """A table with these rows of `audio` by path; the files are made, too."""
    paths, rows = [], []
    for path, windows in vectors.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
        paths += [path] * len(windows)
        rows += windows
    np.savez(
        folder / name,
        path=np.array(paths),
        audio=np.array(rows, np.float32),
        has_audio=np.ones(len(rows), bool),
        video=np.zeros((len(rows), 2), np.float32),
        has_video=np.zeros(len(rows), bool),
    )
    return folder / name


def blobs(seed=0, classes=3, files=10, windows=3, dim=8, noise=0.15):
    """Windows of each file scatter about the direction of its class."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((classes, dim))
    return {
        f"class{c}/f{n}.wav": (centres[c] + noise * random.standard_normal((windows, dim))).tolist()
        for c in range(classes)
        for n in range(files)
    }


def evaluate(folder, table, **settings):
    data = settings.pop("data", DatasetConfig(str(folder)))
    protocol = FrozenConfig(data, embeddings=str(table), feature=settings.pop("feature", "audio"), **settings)
    config = EvalConfig(protocol, "t", str(folder / "out"))
    return config, run(config, folder / "out", lambda n: None)


@pytest.mark.parametrize("kind", KINDS)
def test_separable_classes_are_all_found(kind):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    rows = np.eye(3)[labels] * 4 + 0.1 * random.standard_normal((60, 3))
    assert (class_scores(kind, rows[::2], labels[::2], rows[1::2]).argmax(1) == labels[1::2]).all()
    assert class_scores(kind, rows[labels < 2], labels[labels < 2], rows).shape == (60, 2)


def test_nearest_mean_does_not_depend_on_order():
    random = np.random.default_rng(1)
    rows, labels = random.standard_normal((50, 6)), random.permutation(np.arange(50) % 4)
    test, order = random.standard_normal((9, 6)), random.permutation(50)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].mean(0) for c in range(4)])
    expected = (test / np.linalg.norm(test, axis=1, keepdims=True)) @ (
        means / np.linalg.norm(means, axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(class_scores("nearest_mean", rows, labels, test), expected)
    np.testing.assert_allclose(class_scores("nearest_mean", rows[order], labels[order], test), expected)


def test_one_neighbour_on_what_was_trained_on_is_right():
    random = np.random.default_rng(2)
    rows, labels = random.standard_normal((40, 5)), np.arange(40) % 7
    assert (class_scores("knn", rows, labels, rows, neighbours=1).argmax(1) == labels).all()


def test_files_and_folds_and_few_shots(tmp_path):
    table = table_of(tmp_path, blobs())
    config, outcome = evaluate(tmp_path, table, shots=[1, 2], trials=3)
    assert outcome.items == 30 and not outcome.skipped
    for kind in KINDS:
        assert outcome.metrics[f"{kind}_accuracy"] == 1.0
        assert outcome.metrics[f"{kind}_2shot_accuracy"] > 0.9 and f"{kind}_1shot_std" in outcome.metrics
    assert outcome.chance["knn_accuracy"] == pytest.approx(1 / 3)
    assert len(outcome.tables["folds"]) == 5 and outcome.tables["classes"][0]["class"] == "class0"
    again = evaluate(tmp_path, table, shots=[1, 2], trials=3)[1]
    assert again.metrics == outcome.metrics
    written = json.loads(write_results(tmp_path / "out", config, outcome, wall_s=1.0).read_text())
    assert written["metrics"]["svm_accuracy"] == 1.0


def test_windows_of_a_file_are_judged_together(tmp_path):
    """Two of three windows of a file look like the other class, but weakly: the mean of scores is right."""
    left, right = [1.0, 0.0], [0.0, 1.0]
    vectors = {f"a/{n}.wav": [left] for n in range(6)} | {f"b/{n}.wav": [right] for n in range(6)}
    vectors["a/6.wav"] = [left, [0.99, 1.0], [0.99, 1.0]]
    vectors["b/6.wav"] = [right]
    lists = tmp_path / "list.csv"
    rows = [f"{path},{path[0]},{'test' if '6' in path else 'train'}\n" for path in vectors]
    lists.write_text("path,label,split\n" + "".join(rows))
    data = DatasetConfig(str(tmp_path), "csv", str(lists))
    outcome = evaluate(tmp_path, table_of(tmp_path, vectors), data=data, classifiers=["nearest_mean"])[1]
    assert outcome.metrics == {"nearest_mean_accuracy": 1.0}


def test_several_labels_are_measured_by_average_precision(tmp_path):
    random = np.random.default_rng(3)
    truth = random.random((80, 3)) < 0.4
    truth[np.arange(80), random.integers(0, 3, 80)] = True
    rows = truth + 0.8 * random.standard_normal((80, 3))
    vectors = {f"f{n:02d}.wav": [row] for n, row in enumerate(rows.tolist())}
    names = [";".join(f"c{c}" for c in np.flatnonzero(t)) for t in truth]
    lists = tmp_path / "list.csv"
    lines = [f"f{n:02d}.wav,{name},{'train' if n < 50 else 'test'}\n" for n, name in enumerate(names)]
    lists.write_text("path,label,split\n" + "".join(lines))
    data = DatasetConfig(str(tmp_path), "csv", str(lists))
    table = table_of(tmp_path, vectors)
    outcome = evaluate(tmp_path, table, data=data, multilabel=True, classifiers=["logistic"])[1]
    scores = class_scores("logistic", rows[:50].astype(np.float32), truth[:50], rows[50:].astype(np.float32))
    expected = np.mean([average_precision_score(truth[50:, c], scores[:, c]) for c in range(3)])
    assert outcome.metrics["logistic_map"] == pytest.approx(expected)
    assert outcome.metrics["logistic_map"] > truth[50:].mean() + 0.2


def test_missing_items_are_named_and_refuse_a_score(tmp_path):
    vectors = blobs()
    table = table_of(tmp_path, vectors)
    (tmp_path / "class0" / "late.wav").touch()
    config, outcome = evaluate(tmp_path, table)
    assert outcome.skipped == [{"item": str(tmp_path / "class0/late.wav"), "cause": "has no audio in the table"}]
    assert outcome.items == 30
    with pytest.raises(AvsslError, match=r"late\.wav"):
        write_results(tmp_path / "out", config, outcome, wall_s=1.0)


def test_a_wrong_feature_names_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="has the vectors audio, video"):
        evaluate(tmp_path, table_of(tmp_path, blobs()), feature="audio.conv3")


def test_a_model_embeds_the_files_itself(tmp_path):
    for label, hz in (("low", 200), ("high", 3000)):
        for number in range(4):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            tone = np.sin(np.arange(48000) * 2 * np.pi * hz * (1 + 0.05 * number) / 24000)
            soundfile.write(tmp_path / "data" / label / f"{number}.wav", 0.3 * tone, 24000)
    protocol = FrozenConfig(
        DatasetConfig(str(tmp_path / "data"), folds=2), feature="audio", classifiers=["nearest_mean"]
    )
    config = EvalConfig(protocol, "t", str(tmp_path / "out"), model="tiny")
    done = []
    outcome = run(config, tmp_path / "out", done.append)
    assert outcome.metrics == {"nearest_mean_accuracy": 1.0} and sum(done) == 8
    assert (tmp_path / "out" / "embeddings.npz").exists()
