"""The measurement of `starter`: classes and partners on tables with a known answer, and the page's table."""

import numpy as np
import pytest

from avssl.files import write_json
from avssl.finetuning.features import Windows
from avssl.finetuning.split import Labelled
from eval import starter


def planted(classes=4, files=4, windows=3, seed=0):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), files)
    file = np.repeat(np.arange(len(labels)), windows)
    shared = random.standard_normal((len(labels), 5)) + 3 * np.eye(5)[labels]
    vectors = {
        name: (shared[file] @ random.standard_normal((5, width)) + 0.1 * random.standard_normal((len(file), width)))
        for name, width in (("video", 30), ("audio", 20))
    }
    paths = [starter.Path(f"{n}.mp4") for n in range(len(labels))]
    labelled = Labelled(paths, labels, [str(n) for n in range(len(labels))], list("abcd"), None)
    return labelled, Windows(vectors, {name: np.ones(len(file), bool) for name in vectors}, file)


def test_planted_classes_and_partners_are_found(monkeypatch):
    monkeypatch.setattr(starter, "DRAWS", 4)
    labelled, windows = planted()
    found = starter.classes_of(labelled, windows, ["video", "audio"])
    assert found["judged"] == 16 and found["linear_right"] >= 15 and found["chance"] == 0.25
    partners = starter.partners(windows)
    assert partners["recall"]["2"] > 0.6 > partners["chance"]["2"] == 0.25


def test_the_table_stands_in_the_page(tmp_path, capsys):
    one = {"classes": 4, "judged": 9, "chance": 1 / 3, "nearest_mean_right": 5, "linear_right": 7}
    partners = {"videos": 16, "held_out": 8, "draws": 40, "recall": {"1": 0.22}, "chance": {"1": 0.125}}
    tree = {"videos": {"both": one}, "sounds": {"audio": one}, "partners": partners}
    write_json(tmp_path / "r.json", tree)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{starter.BEGIN}old\n{starter.END}\nafter\n")
    words = ["--table", "--result", str(tmp_path / "r.json"), "--page", str(page)]
    for _ in range(2):
        assert starter.main(words) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("| 9 | 33% | 5 right | 7 right |") == 2 and "R@1 0.22 (chance 0.12)" in text


def test_without_media_it_says_so(monkeypatch):
    monkeypatch.delenv("AVSSL_MEDIA", raising=False)
    with pytest.raises(starter.UsageError, match="AVSSL_MEDIA"):
        starter.main([])
