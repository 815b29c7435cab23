"""Protocols of separation: useless separators get the scores they must, layouts are read, faults are counted."""

import csv
import math

import numpy as np
import pytest
import soundfile
import torch
from tiny_separators import RATE_HZ, all_pass, save_separator, save_tagger, tiny_separator

from avssl.config import build
from avssl.errors import ConfigError, UsageError
from avssl.evaluation.protocol import EvalConfig
from avssl.evaluation.registry import protocol_run
from avssl.evaluation.separation_pairs import _pairs
from avssl.evaluation.separation_scores import oracle_mask, summary
from avssl.evaluation.separation_stems import read_stems
from avssl.separation.metrics import sdr, si_sdr


def evaluate(tmp_path, model, **protocol):
    tree = {"name": "test", "out": str(tmp_path / "out"), "model": str(model), "protocol": protocol}
    config = build(EvalConfig, tree)
    return protocol_run(config.protocol.name)(config, tmp_path / "out", lambda n: None)


def write(path, hz, seconds=0.6, noise=0.0, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sound = 0.3 * np.sin(2 * np.pi * hz * time) + noise * np.random.default_rng(seed).standard_normal(len(time))
    soundfile.write(path, sound, RATE_HZ, subtype="FLOAT")
    return torch.from_numpy(sound).float()


@pytest.fixture(scope="module")
def passing(tmp_path_factory):
    """Gives the mixture for whatever is asked."""
    return save_separator(tmp_path_factory.mktemp("m"), all_pass(tiny_separator()))


@pytest.fixture
def clips(tmp_path):
    rows = []
    for label, hz in (("Guitar", 400), ("Dog bark", 1100)):
        for split in ("train", "test"):
            for n in range(2):
                write(tmp_path / "clips" / f"{label}{split}{n}.wav", hz + 30 * n)
                rows.append({"path": f"{label}{split}{n}.wav", "label": label, "split": split})
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return {"kind": "csv", "root": str(tmp_path / "clips"), "lists": str(tmp_path / "list.csv")}


@pytest.mark.parametrize("query", ["average", "class", "oracle"])
def test_pairs_of_one_who_does_nothing(tmp_path, passing, clips, query):
    """Tones at equal energy: the mixture has 0 dB, nothing is gained, the swapped query is as good, the mask is not."""
    found = evaluate(tmp_path, passing, name="separation_pairs", data=clips, query=query, pairs=3, segment_s=0.5)
    assert found.items == 6 and not found.skipped
    assert found.metrics["sdr_db"] == pytest.approx(0, abs=0.02)
    assert found.metrics["sdri_db"] == pytest.approx(0, abs=0.02)
    assert found.metrics["si_sdri_db"] == pytest.approx(0, abs=0.02)
    assert found.metrics["si_sdr_swapped_query_db"] == pytest.approx(found.metrics["si_sdr_db"], abs=0.02)
    assert found.metrics["si_sdri_oracle_mask_db"] > 20
    assert [row["class"] for row in found.tables["classes"]] == ["Dog bark", "Guitar"]
    assert [row["items"] for row in found.tables["classes"]] == [3, 3]


def test_unreadable_clips_are_counted_once(tmp_path, passing, clips):
    (tmp_path / "clips" / "Guitartest0.wav").write_bytes(b"nothing")
    found = evaluate(tmp_path, passing, name="separation_pairs", data=clips, query="class", pairs=4, segment_s=0.5)
    assert [entry["item"].rpartition("/")[2] for entry in found.skipped] == ["Guitartest0.wav"]
    assert found.items < 8


def test_pairs_use_every_clip_and_never_the_own_class():
    test = {"a": ["a1", "a2", "a3"], "b": ["b1"], "c": ["c1"]}
    pairs = _pairs("a", test, 6, seed=0)
    assert sorted(path for path, _, _ in pairs) == ["a1", "a1", "a2", "a2", "a3", "a3"]
    assert {other for _, _, other in pairs} <= {"b", "c"}
    assert pairs == _pairs("a", test, 6, seed=0) != _pairs("a", test, 6, seed=1)


def test_the_oracle_mask_is_nearly_the_answer():
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16000) / 8000
    target, rest = torch.sin(2 * math.pi * 300 * time), torch.randn(16000, generator=generator)
    assert sdr(oracle_mask(target + rest, target, 512, 128), target) > 10
    torch.testing.assert_close(oracle_mask(target, target, 512, 128), target, rtol=0, atol=1e-5)


def test_median_over_items_then_mean_over_classes():
    metrics, rows = summary([("a", {"x": 1.0}), ("a", {"x": 5.0}), ("a", {"x": 3.0}), ("b", {"x": 9.0})])
    assert metrics == {"x": 6.0}
    assert rows == [{"class": "a", "items": 3, "x": 3.0}, {"class": "b", "items": 1, "x": 9.0}]


def song(folder, seed=0):
    stems = {
        name: write(folder / f"{name}.wav", hz, 1.2) for name, hz in (("bass", 150 + seed), ("vocals", 900 + seed))
    }
    soundfile.write(folder / "mixture.wav", sum(stems.values()).numpy(), RATE_HZ, subtype="FLOAT")
    return stems


def test_whole_songs_against_a_plain_computation(tmp_path):
    """A separator that gives 0.7 of the mixture: SDR-v4 is the median over frames of the plain ratio."""
    model = save_separator(tmp_path / "m", all_pass(tiny_separator(), gain=0.7))
    song(tmp_path / "train" / "s1", 20)
    stems = song(tmp_path / "test" / "s2")
    values = {"name": "separation_stems", "root": str(tmp_path / "test"), "train_root": str(tmp_path / "train")}
    found = evaluate(tmp_path, model, **values, frame_s=0.3)
    rows = {row["class"]: row for row in found.tables["classes"]}
    mixture = sum(stems.values())
    exchanged = []
    for name, stem in stems.items():
        s, e = stem.view(4, -1).double(), 0.7 * mixture.view(4, -1).double()
        expected = (10 * (s.square().sum(1) / (e - s).square().sum(1)).log10()).quantile(0.5)
        assert rows[name]["sdr_v4_db"] == pytest.approx(float(expected), abs=0.02)
        exchanged.append(float((10 * (e.square().sum(1) / (e - s).square().sum(1)).log10()).quantile(0.5)))
        assert rows[name]["si_sdr_db"] == pytest.approx(float(si_sdr(mixture, stem)), abs=0.02)
    swapped = evaluate(tmp_path, model, **values, frame_s=0.3, released_swap=True)
    assert "sdr_v4_db" not in swapped.metrics
    assert swapped.metrics["sdr_v4_swapped_db"] == pytest.approx(np.mean(exchanged), abs=0.02)


@pytest.mark.parametrize("embedding", ["log_spectra", "tagger"])
def test_a_mixture_is_no_separation_for_mapss(tmp_path, passing, embedding):
    """Every output is the mixture: each is as near to the other source as to its own."""
    song(tmp_path / "test" / "s")
    model = embedding if embedding == "log_spectra" else str(save_tagger(tmp_path / "tagger"))
    found = evaluate(
        tmp_path, passing, name="separation_stems", root=str(tmp_path / "test"), query="oracle", mapss=model
    )
    assert found.metrics["mapss_ps"] == pytest.approx(0.5, abs=0.15)
    assert 0 <= found.metrics["mapss_pm"] <= 1


def test_chunks_where_the_stem_is_heard(tmp_path, passing):
    folder = tmp_path / "slakh" / "Track1"
    stems = folder / "stems"
    first, second = write(stems / "S00.flac.wav", 300, 3.0), write(stems / "S01.flac.wav", 800, 3.0)
    first[: 2 * RATE_HZ] = 0
    for name, sound in (("S00", first), ("S01", second)):
        soundfile.write(stems / f"{name}.flac", sound.numpy(), RATE_HZ)
        (stems / f"{name}.flac.wav").unlink()
    soundfile.write(folder / "mix.flac", (first + second).numpy(), RATE_HZ)
    (folder / "metadata.yaml").write_text(
        "stems:\n  S00: {plugin_name: piano}\n  S01: {plugin_name: bass}\n  S02: {plugin_name: not rendered}\n"
    )
    found = evaluate(
        tmp_path, passing, name="separation_stems", layout="slakh", root=str(tmp_path / "slakh"), query="oracle",
        chunk_s=0.5, fewest_chunks=1, most_chunks=5,
    )  # fmt: skip
    assert {row["class"]: row["items"] for row in found.tables["classes"]} == {"piano": 2, "bass": 5}


def test_speech_out_of_noise(tmp_path, passing):
    for n in range(2):
        clean = write(tmp_path / "clean" / f"p{n}.wav", 300 + n, 1.0)
        noise = 0.03 * torch.randn(len(clean), generator=torch.Generator().manual_seed(n))
        (tmp_path / "noisy").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "noisy" / f"p{n}.wav", (clean + noise).numpy(), RATE_HZ, subtype="FLOAT")
    write(tmp_path / "noisy" / "lonely.wav", 300)
    found = evaluate(
        tmp_path, passing, name="separation_denoise", noisy=str(tmp_path / "noisy"), clean=str(tmp_path / "clean"),
        query="class", class_name="Dog bark", rate_hz=RATE_HZ,
    )  # fmt: skip
    assert found.items == 2 and [entry["item"].rpartition("/")[2] for entry in found.skipped] == ["lonely.wav"]
    assert found.metrics["ssnr_db"] == pytest.approx(found.metrics["ssnr_noisy_db"], abs=0.1)
    assert found.metrics["ssnr_db"] == pytest.approx(10 * math.log10(0.045 / 0.0009), abs=1.0)


def test_what_cannot_be_evaluated_is_said(tmp_path, passing, clips):
    with pytest.raises(ConfigError, match="holds no stems in the layout 'musdb'"):
        read_stems("musdb", str(tmp_path), None)
    with pytest.raises(ConfigError, match=r"protocol\.train_root: missing"):
        evaluate(tmp_path, passing, name="separation_stems", root=str(tmp_path))
    with pytest.raises(ConfigError, match=r"protocol\.miner: goes with segment 'mined'"):
        evaluate(tmp_path, passing, name="separation_pairs", data=clips, segment="mined")
    config = build(EvalConfig, {"name": "x", "out": "x", "protocol": {"name": "separation_pairs", "data": clips}})
    with pytest.raises(UsageError, match="needs a separator"):
        protocol_run("separation_pairs")(config, tmp_path, lambda n: None)
