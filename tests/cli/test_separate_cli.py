"""avssl-separate: what it writes, what it keeps, what it refuses, and that long files need no more memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_media import write_clip
from tiny_separators import all_pass, save_separator, tiny_separator

from avssl.cli.separate import class_names, main

RATE_HZ = 22050


def call(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def write_sound(path: Path, seconds=0.9, channels=2, rate_hz=RATE_HZ, subtype="PCM_16", seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = [0.3 * np.sin(2 * np.pi * (300 + 170 * n + seed) * time * (1 + time / 9)) for n in range(channels)]
    soundfile.write(path, np.stack(tones, axis=1), rate_hz, subtype=subtype)
    return path


def steps(path: Path) -> np.ndarray:
    """The samples of a FLAC file as numbers of 24 bits."""
    return soundfile.read(path, dtype="int32", always_2d=True)[0].astype(np.int64) >> 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_separator(tmp_path_factory.mktemp("model"), tiny_separator())


def test_classes_in_files_that_sum_to_the_mixture(model, tmp_path, capsys):
    mix = write_sound(tmp_path / "mix.wav")
    out = tmp_path / "out"
    code, text, _ = call(capsys, mix, "-o", out, "--model", model, "--classes", 'Guitar,"Flute, whistle",/t/dog')
    assert code == 0 and "3 sources of 1 files" in text
    names = ["dog-bark.flac", "flute-whistle.flac", "guitar.flac", "residual.flac"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "report.html", "separation.json"])
    for name in names:
        info = soundfile.info(out / name)
        assert (info.samplerate, info.channels, info.frames) == (RATE_HZ, 2, round(0.9 * RATE_HZ))
    mixture = soundfile.read(mix, dtype="int16")[0].astype(np.int64) * 256
    assert np.array_equal(sum(steps(out / name) for name in names), mixture)  # to the last bit
    facts = json.loads((out / "separation.json").read_text())
    assert facts["complete"] and facts["facts"]["input"]["seconds"] == pytest.approx(0.9)
    assert [source["score"] for source in facts["facts"]["sources"]] == pytest.approx([0.9] * 3, abs=1e-4)


def test_a_hierarchy_is_a_tree_with_files(model, tmp_path, capsys):
    mix = write_sound(tmp_path / "mix.wav", channels=1)
    words = (mix, "-o", tmp_path / "out", "--model", model, "--format", "wav", "--json")
    code, text, _ = call(capsys, *words, "--hierarchy", "--levels", "1,3")
    assert code == 0
    tree = json.loads((tmp_path / "out" / "tree.json").read_text())
    (top,) = tree["tree"]
    assert (top["name"], top["level"], top["file"]) == ("All sounds", 1, "level1-all-sounds.wav")
    assert [child["name"] for child in top["children"]] == ["Guitar", "Flute, whistle"]
    assert json.loads(text)["files"][str(mix)]["tree"] == tree["tree"]
    whole, rest = (soundfile.read(tmp_path / "out" / name)[0] for name in (top["file"], "residual.wav"))
    mixture = soundfile.read(mix)[0]
    assert np.abs(whole + rest - mixture).max() < 1e-7  # parts of what is found are not taken away twice


def test_examples_pictures_and_vectors(tmp_path, capsys):
    example = [write_sound(tmp_path / f"like{n}.wav", seed=50 * n) for n in range(2)]
    mix = write_clip(tmp_path / "clip.mp4", 1.0)  # the sound of a video is as good as any
    embedding = save_separator(tmp_path / "e", tiny_separator("embedding"))
    code, _, err = call(
        capsys, mix, "-o", tmp_path / "1", "--model", embedding, "--query", example[0], "--query", example[1]
    )
    assert code == 0, err
    assert (tmp_path / "1" / "like-like0-like1.flac").exists()
    seeing = save_separator(tmp_path / "s", tiny_separator("embedding", "two_tower"))
    code, _, err = call(capsys, mix, "-o", tmp_path / "2", "--model", seeing, "--query-video", mix)
    assert code == 0, err
    assert soundfile.info(tmp_path / "2" / "sound-of-clip.flac").samplerate == 24000
    code, _, err = call(capsys, mix, "-o", tmp_path / "3", "--model", embedding, "--query-video", mix)
    assert code == 2 and "pictures tell it nothing" in err
    np.save(tmp_path / "v.npy", np.ones(12, np.float32))
    vectors = save_separator(tmp_path / "v", tiny_separator("embedding", "vector"))
    code, _, err = call(capsys, mix, "-o", tmp_path / "4", "--model", vectors, "--query-vector", tmp_path / "v.npy")
    assert code == 0 and (tmp_path / "4" / "v.flac").exists()


def test_folders_go_on_after_bad_files_and_after_a_stop(model, tmp_path, capsys):
    folder = tmp_path / "in"
    write_sound(folder / "a.wav"), write_sound(folder / "deep" / "b.wav", seed=1)
    (folder / "broken.wav").write_bytes(b"RIFF but no sound")
    write_clip(folder / "mute.mp4", 1.0, sound=None)
    (folder / "notes.txt").write_text("not media")
    out = tmp_path / "out"
    words = (folder, "-o", out, "--model", model, "--classes", "Guitar")
    code, text, err = call(capsys, *words)
    assert code == 1 and "2 failed" in text
    assert "broken.wav" in err and "mute.mp4" in err and "no-audio" in err
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*.flac"))
    assert files == [f"{name}/{part}.flac" for name in ("a.wav", "deep/b.wav") for part in ("guitar", "residual")]
    assert not (out / "broken.wav").exists() and not list(out.rglob("*.tmp"))
    before = (out / "a.wav" / "guitar.flac").stat().st_mtime_ns

    state = out / "deep" / "b.wav" / "separation.json"  # as if stopped in the second file
    state.write_text(json.dumps({**json.loads(state.read_text()), "complete": False}))
    code, text, _ = call(capsys, *words)
    assert code == 1 and "1 of them done before" in text
    assert (out / "a.wav" / "guitar.flac").stat().st_mtime_ns == before

    code, _, err = call(capsys, folder, "-o", out, "--model", model, "--classes", "Dog bark")
    assert code == 2 and "holds sources of another model or other settings" in err
    write_sound(folder / "a.wav", seed=7)  # the recording has changed: it is separated anew
    call(capsys, *words)
    assert (out / "a.wav" / "guitar.flac").stat().st_mtime_ns != before


def test_files_of_others_are_left_alone(model, tmp_path, capsys):
    mix = write_sound(tmp_path / "mix.wav")
    code, _, err = call(capsys, mix, "-o", tmp_path, "--model", model, "--classes", "Guitar")
    assert code == 2 and "holds files of others" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mix.wav"]


def test_a_weak_query_is_said(tmp_path, capsys):
    quiet = tiny_separator()
    with torch.no_grad():
        quiet.tagger.fc_audioset.bias[2] = -5.0
    model = save_separator(tmp_path / "m", quiet)
    mix = write_sound(tmp_path / "mix.wav")
    code, _, err = call(capsys, mix, "-o", tmp_path / "o", "--model", model, "--classes", "Dog bark,Guitar")
    assert code == 0
    assert "'Dog bark' is weak: the tagger gives it at most 0.007" in err and "threshold 0 separates it" in err
    assert "'Guitar'" not in err
    assert not steps(tmp_path / "o" / "dog-bark.flac").any()
    faint = save_separator(tmp_path / "f", all_pass(tiny_separator(), gain=0.01))
    _, _, err = call(capsys, mix, "-o", tmp_path / "p", "--model", faint, "--classes", "Guitar")
    assert "'Guitar' is weak: what was separated is 40 dB below the mixture" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "Guitr"], "there is no class 'Guitr'; did you mean 'Guitar'?"),
        ([], "ask for something"),
        (["--classes", "Guitar", "--hierarchy"], "ask for something"),
        (["--classes", "Guitar", "--levels", "1"], "add --hierarchy"),
        (["--classes", "Guitar", "--overlap", "0.7"], "give 0 to 0.5"),
        (["--hierarchy", "--levels", "0"], "no list of levels"),
    ],
)
def test_wrong_use(model, tmp_path, capsys, words, message):
    mix = write_sound(tmp_path / "mix.wav")
    code, _, err = call(capsys, mix, "-o", tmp_path / "out", "--model", model, *words)
    assert code == 2 and message in err and "\n" not in err.strip()
    assert not (tmp_path / "out").exists()


def test_flac_says_what_it_cannot_hold(tmp_path, capsys):
    """A float recording louder than full scale is cut in FLAC, and counted; WAV keeps it."""
    loud = tmp_path / "loud.wav"
    soundfile.write(loud, np.full((8000, 1), 1.5, np.float32), 8000, subtype="FLOAT")
    model = save_separator(tmp_path / "m", all_pass(tiny_separator()))
    words = (loud, "--model", model, "--classes", "Guitar", "--no-report")
    call(capsys, *words, "-o", tmp_path / "f")
    facts = json.loads((tmp_path / "f" / "separation.json").read_text())["facts"]
    assert facts["sources"][0]["clipped"] > 7000
    call(
        capsys, loud, "-o", tmp_path / "w", "--model", model, "--classes", "Guitar", "--format", "wav", "--no-residual"
    )
    assert soundfile.read(tmp_path / "w" / "guitar.wav")[0][1000:-1000] == pytest.approx(1.5, abs=1e-3)
    assert not (tmp_path / "w" / "residual.wav").exists()


def test_names_with_commas():
    assert class_names(['Speech,"Male speech, man speaking"', "Dog"]) == ["Speech", "Male speech, man speaking", "Dog"]


_PEAKS = """
import resource, sys
from avssl.cli.separate import main
for name in sys.argv[2:]:
    try:
        main([name, "-o", name + ".out", "--model", sys.argv[1], "--classes", "Guitar", "--overlap", "0"])
    except SystemExit as stop:
        assert stop.code == 0, stop.code
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Two minutes need no more than half a minute does, within 10 MB; the three signals alone would take 34 MB more."""
    model = save_separator(tmp_path / "m", all_pass(tiny_separator()))
    second = np.sin(np.arange(16000) * 0.2)[:, None] * [[0.3, 0.2]]
    for seconds in (35, 120):  # written as it is made: a process starts with the peak of the one that starts it
        with soundfile.SoundFile(tmp_path / f"{seconds}.wav", "w", samplerate=16000, channels=2) as file:
            for _ in range(seconds):
                file.write(second)
    code = [sys.executable, "-c", _PEAKS, str(model), *(str(tmp_path / f"{seconds}.wav") for seconds in (35, 120))]
    done = subprocess.run(code, capture_output=True, text=True, check=True)
    peaks_mb = [int(line.split()[1]) / 1024 for line in done.stdout.splitlines() if line.startswith("peak")]
    assert soundfile.info(tmp_path / "120.wav.out" / "guitar.flac").frames == 120 * 16000
    assert peaks_mb[1] - peaks_mb[0] < 10
