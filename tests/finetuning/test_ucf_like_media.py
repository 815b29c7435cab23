"""Real clips in UCF101's layout and official list format through the three protocols: frozen, few shots, fine-tuning.

At tiny size, with a random model: that they run, keep sources apart and count right, not what they reach.
"""

import json
import shutil
from collections import defaultdict

import pytest

from avssl.cli import evaluate
from avssl.evaluation.dataset_config import DatasetConfig
from avssl.evaluation.datasets import read_folds
from avssl.media import open_media
from avssl.media.encode import write_video

CLIP_S, CLIPS, SIDE_PX = 1.0, 2, 48


@pytest.fixture(scope="module")
def ucf_like(media_dir, tmp_path_factory):
    """Classes with two sources or more, each source a group of two clips; the genuine UCF101 file as it is."""
    root = tmp_path_factory.mktemp("ucf_like")
    sources = defaultdict(list)
    for path in sorted((media_dir / "av_labelled").glob("*/*.mp4")):
        sources[path.parent.name.title().replace("_", "")].append(path)
    train, test = [], []
    for label, paths in sorted(sources.items()):
        if len(paths) < 2:
            continue
        for group, path in enumerate(paths, 1):
            for clip in range(1, CLIPS + 1):
                name = f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi"
                cut_clip(path, root / name, clip)
                (test if group == 1 else train).append(name)
    genuine = next((media_dir / "video").glob("v_ApplyEyeMakeup*.avi"))
    name = "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"
    (root / name).parent.mkdir()
    shutil.copy(genuine, root / name)
    train.append(name)
    classes = sorted({name.split("/")[0] for name in train})
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{n} {label}\n" for n, label in enumerate(classes, 1)))
    for fold in (1, 2, 3):
        lines = [f"{name} {classes.index(name.split('/')[0]) + 1}\n" for name in train]
        (lists / f"trainlist{fold:02d}.txt").write_text("".join(lines))
        (lists / f"testlist{fold:02d}.txt").write_text("".join(f"{name}\n" for name in test))
    return root


def cut_clip(source, target, number):
    target.parent.mkdir(exist_ok=True)
    with open_media(source) as media:
        start_s = media.info.video.start_s + number * media.info.video.duration_s / (CLIPS + 1)
        times = [start_s + k / 16 for k in range(round(CLIP_S * 16))]
        frames = media.frames_at(times, short_side_px=SIDE_PX).data
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with target.open("wb") as file:
        write_video(file, frames[:, :height, :width], 16, container="mp4")


def call(tmp_path, root, model, *words):
    data = {"kind": "ucf101", "root": str(root), "lists": str(root / "ucfTrainTestlist"), "fold": 1}
    given = [part for key, value in data.items() for part in (f"--protocol.data.{key}", str(value))]
    with pytest.raises(SystemExit) as caught:
        evaluate.main(
            [*words, *given, "--name", "like", "--out", str(tmp_path), "--model", str(model), "--device", "cpu"]
        )
    assert caught.value.code == 0
    return json.loads((tmp_path / "results.json").read_text())


def test_sources_are_apart(ucf_like):
    (fold,) = read_folds(DatasetConfig(str(ucf_like), "ucf101", str(ucf_like / "ucfTrainTestlist"), fold=1))
    assert len(fold.test) == 8 and len(fold.train) == 11
    assert all(item.path.is_file() for item in (*fold.train, *fold.test))


def test_frozen_and_few_shots(ucf_like, tiny_model, tmp_path):
    words = ["--protocol.name", "frozen", "--protocol.shots", "[1]", "--protocol.trials", "10"]
    results = call(tmp_path, ucf_like, tiny_model, *words, "--protocol.feature", "video.pool")
    assert results["counts"] == {"items": 19, "skipped": 0} and results["extra"]["classes"] == 5
    metrics = results["metrics"]
    assert {"svm_accuracy", "nearest_mean_accuracy", "svm_1shot_accuracy", "svm_1shot_std"} <= metrics.keys()
    assert all(0 <= value <= 1 for value in metrics.values())


def test_fine_tuning(ucf_like, tiny_model, tmp_path):
    fit = {"epochs": 1, "clips": 1, "test_clips": 2, "batch_size": 8, "workers": 0, "frames": 4, "size_px": 32}
    words = [part for key, value in fit.items() for part in (f"--protocol.fit.{key}", str(value))]
    results = call(tmp_path, ucf_like, tiny_model, "--protocol.name", "finetune", *words)
    assert results["counts"] == {"items": 19, "skipped": 0} and 0 <= results["metrics"]["accuracy"] <= 1
    assert results["chance"]["accuracy"] == pytest.approx(0.25)
