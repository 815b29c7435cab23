import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_media import save_tiny_model, write_clip

from avssl.cli import embed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


def run(*arguments):
    """The command in this process: exit code."""
    with pytest.raises(SystemExit) as stopped:
        embed.main([str(argument) for argument in arguments])
    return stopped.value.code


def test_a_folder_becomes_a_table(model, tmp_path, capsys):
    write_clip(tmp_path / "in" / "a.mp4", 2.0)
    output = tmp_path / "out.npz"
    assert run(tmp_path / "in", "-o", output, "--model", model, "--window", "1", "--hop", "0.5", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == 3
    assert summary["inputs"] == [{"path": str(tmp_path / "in" / "a.mp4"), "rows": 3, "status": "done"}]
    with np.load(output, allow_pickle=False) as columns:
        assert columns["start_s"].tolist() == [0, 0.5, 1]
        assert columns["video"].shape == (3, 16)
        meta = json.loads(str(columns["meta"]))
    assert (meta["model"], meta["window_s"], meta["hop_s"]) == (model, 1, 0.5)
    assert run(tmp_path / "in", "-o", output, "--model", model, "--window", "1", "--hop", "0.5") == 0
    assert "complete already" in capsys.readouterr().out


def test_a_bad_file_gives_one_sentence_and_exit_1(model, tmp_path, capsys):
    write_clip(tmp_path / "good.mp4", 1.0)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(os.urandom(5000))
    assert run(bad, tmp_path / "good.mp4", "-o", tmp_path / "out.npz", "--model", model) == 1
    captured = capsys.readouterr()
    (sentence,) = [line for line in captured.err.splitlines() if "bad.mp4" in line and line.startswith("avssl-embed:")]
    assert "(not-media)" in sentence
    assert "Traceback" not in captured.err
    assert "1 failed" in captured.out
    with np.load(tmp_path / "out.npz", allow_pickle=False) as columns:
        assert len(columns["path"]) == 1


def test_nothing_embedded_is_a_failure_without_output(model, tmp_path, capsys):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert run(tmp_path / "empty.mp4", "-o", tmp_path / "out.npz", "--model", model) == 1
    captured = capsys.readouterr()
    assert "(empty)" in captured.err
    assert "no output was written" in captured.out
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["absent.mp4", "-o", "out.npz"], 2, "absent.mp4: no such file or folder"),
        (["clip.mp4", "-o", "out.csv"], 2, "must end in .npz or .parquet"),
        (["clip.mp4"], 2, "required: -o"),
        (["clip.mp4", "-o", "out.npz", "--window", "0"], 2, "0.01 to 86400"),
        (["clip.mp4", "-o", "out.npz", "--hop", "nan"], 2, "0.01 to 86400"),
        (["clip.mp4", "-o", "out.npz", "--modality", "smell"], 2, "not video, audio"),
        (["clip.mp4", "-o", "out.npz", "--batch-size", "x"], 2, "'x' is not a number from 1 on"),
        ([os.devnull, "-o", "out.npz"], 2, "is neither a file nor a folder"),
        (["clip.mp4", "-o", "clip.mp4/out.npz", "--model", "MODEL"], 1, "out.npz: cannot be written: Not a directory"),
        (["clip.mp4", "-o", "out.npz", "--device", "abacus"], 2, "no such device"),
        (["clip.mp4", "-o", "out.npz", "--device", "cuda:99"], 2, "GPUs here"),
        (["clip.mp4", "-o", "out.npz", "--model", "absent"], 1, "absent: no such model folder"),
        (["clip.mp4", "-o", "out.npz", "--model", "MODEL", "--layers", "x"], 2, "no layer 'x'; valid: video.conv1"),
    ],
)
def test_wrong_use_is_one_sentence(model, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").write_bytes(b"never opened")
    assert run(*[model if argument == "MODEL" else argument for argument in arguments]) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_without_a_model_the_bundled_one_is_used_and_named(tmp_path, capsys, monkeypatch):
    from avssl.models import starter
    from avssl.models.folder import bundled_models

    monkeypatch.setattr(starter, "installed", lambda: False)
    write_clip(tmp_path / "a.mp4", 1.0)
    code = run(tmp_path / "a.mp4", "-o", tmp_path / "out.npz")
    captured = capsys.readouterr()
    if "tiny" in bundled_models():
        assert code == 0
        assert "using the bundled one: tiny" in captured.err
    else:
        assert code == 2
        assert "no bundled model; name one with --model" in captured.err


def test_without_a_model_starter_is_used_where_it_is_installed(model, tmp_path, capsys, monkeypatch):
    from avssl.models import starter

    monkeypatch.setattr(starter, "folder", lambda: Path(model))
    write_clip(tmp_path / "a.mp4", 1.0)
    assert run(tmp_path / "a.mp4", "-o", tmp_path / "out.npz") == 0
    assert "using starter" in capsys.readouterr().err
    with np.load(tmp_path / "out.npz") as table:
        assert json.loads(str(table["meta"]))["model"] == "starter"


def test_killed_and_started_again_it_gives_the_same_file(model, tmp_path):
    """A real SIGKILL, sent as soon as the first file is done."""
    for number in range(4):
        write_clip(tmp_path / "in" / f"{number}.mp4", 2.0, seed=number)
    whole, output = tmp_path / "whole.npz", tmp_path / "out.npz"
    arguments = [str(tmp_path / "in"), "--model", model, "-o"]
    assert run(*arguments, whole) == 0
    command = [sys.executable, "-c", "from avssl.cli.embed import main; main()", *arguments, str(output)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(output.with_name("out.npz.parts").glob("*.arrow")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert run(*arguments, output) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert not output.with_name("out.npz.parts").exists()
