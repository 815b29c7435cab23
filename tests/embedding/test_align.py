"""Aligned heads: fitted as planted, chosen on held-out files, and the same numbers through the model folder."""

import json

import numpy as np
import pytest
import torch
from tiny_media import save_tiny_model, write_clip

import avssl
from avssl.cli import align as command
from avssl.embedding.align import Choice, align, choose, file_weights, mean_rank, write_aligned
from avssl.errors import UsageError


def pairs(files=30, windows=5, shared=3, dims=(40, 24), noise=0.3, seed=0):
    """Windows of a file are alike; what picture and sound share is planted in few dimensions."""
    random = np.random.default_rng(seed)
    source = np.repeat(random.standard_normal((files, shared)), windows, 0)
    source = source + 0.3 * random.standard_normal(source.shape)
    sides = [
        source @ random.standard_normal((shared, d)) + noise * random.standard_normal((len(source), d)) for d in dims
    ]
    return (*sides, np.repeat([f"f{n}.mp4" for n in range(files)], windows))


def test_planted_pairs_find_each_other_in_new_files():
    video, audio, files = pairs()
    train = np.isin(files, [f"f{n}.mp4" for n in range(20)])
    aligned, choice = align(video[train], audio[train], files[train])
    rank = mean_rank(aligned.first(video[~train]), aligned.second(audio[~train]), files[~train])
    assert rank < 0.1 and choice.mean_rank < 0.1 and choice.dim <= 8


def test_much_ridge_unless_less_is_clearly_better():
    ranks = {(1.0, 2): [0.30, 0.20, 0.40], (100.0, 8): [0.35, 0.3, 0.45], (100.0, 64): [0.33, 0.3, 0.4]}
    assert choose(ranks) == Choice(8, 100.0, pytest.approx(1.1 / 3))
    assert choose(ranks | {(1.0, 2): [0.1, 0.1, 0.11]})[:2] == (2, 1.0)
    assert choose({(1.0, 2): [0.5], (10.0, 2): [0.5]}).ridge == 10.0


def test_long_files_weigh_no_more():
    weights = file_weights(np.array(list("aaab")))
    np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_pairs_without_anything_in_common_stay_at_luck():
    random = np.random.default_rng(0)
    files = np.repeat([f"f{n}" for n in range(40)], 3)
    video, audio = random.standard_normal((120, 30)), random.standard_normal((120, 20))
    train = np.arange(120) < 60
    aligned, _ = align(video[train], audio[train], files[train])
    assert 0.35 < mean_rank(aligned.first(video[~train]), aligned.second(audio[~train]), files[~train]) < 0.65


def test_mean_rank_by_counting():
    random = np.random.default_rng(1)
    video, audio = random.standard_normal((6, 3)), random.standard_normal((6, 3))
    files = np.array(list("aabbcc"))

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    places = []
    for i in range(6):
        rivals = [j for j in range(6) if files[j] != files[i]]
        own = cosine(video[i], audio[i])
        places.append(np.mean([cosine(video[i], audio[j]) > own for j in rivals]))
        places.append(np.mean([cosine(video[j], audio[i]) > own for j in rivals]))
    assert mean_rank(video, audio, files) == pytest.approx(np.mean(places))


def test_too_few_files_are_refused():
    with pytest.raises(UsageError, match="at least 4 files"):
        align(*pairs(files=3))


def test_the_model_folder_gives_the_projections(tmp_path):
    source = str(save_tiny_model(tmp_path / "tiny"))
    model = avssl.load(source)
    random = np.random.default_rng(0)
    frames = torch.from_numpy(random.integers(0, 256, (6, 8, 64, 64, 3), dtype=np.uint8))
    sound = torch.from_numpy(random.standard_normal((6, 1, model.audio_input.samples))).float()
    video = model.encode_video(frames, layers=["pool"])["pool"].numpy()
    audio = model.encode_audio(sound, model.audio_input.rate_hz, layers=["pool"])["pool"].numpy()
    aligned, _ = align(video, audio, np.arange(6).astype(str))
    aligned = aligned.cut(2)
    write_aligned(source, tmp_path / "aligned", aligned, Choice(2, 0.1, 0.3), {"pairs": 6, "files": 6})
    loaded = avssl.load(tmp_path / "aligned")
    assert loaded.dim == 2 and loaded.description["aligned"]["model"] == source
    expected = aligned.first(video.astype(np.float64))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.encode_video(frames).numpy(), expected, atol=1e-4)
    expected = aligned.second(audio.astype(np.float64))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.encode_audio(sound, loaded.audio_input.rate_hz).numpy(), expected, atol=1e-4)


def test_the_command_from_files_to_a_model(tmp_path, capsys):
    model = save_tiny_model(tmp_path / "tiny")
    for number in range(5):
        write_clip(tmp_path / "videos" / f"{number}.mp4", 2.0, seed=number)
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"nothing")
    words = [tmp_path / "videos", "-o", tmp_path / "out", "--model", model, "--window", 1, "--hop", 1, "--json"]
    with pytest.raises(SystemExit) as stop:
        command.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and "left out" in err and "broken.mp4" in err
    found = json.loads(out)
    assert found["files"] == 5 and found["pairs"] == 10
    assert avssl.load(tmp_path / "out").dim == found["dim"]
    with pytest.raises(SystemExit) as stop:
        command.main([str(word) for word in words])
    assert stop.value.code == 2 and "holds a model already" in capsys.readouterr().err
