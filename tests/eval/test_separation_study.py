"""The study of separation: its sounds and mixtures, what later conditions start from, and its page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from avssl import config as configuration
from avssl.errors import ConfigError
from avssl.files import read_jsonl
from avssl.media.flac import decode_flac, encode_flac
from avssl.models.folder import save_model
from avssl.models.separation_config import QueryConfig, SeparatorConfig, TaggerConfig
from avssl.models.separator_model import SeparatorModel
from avssl.models.sound_config import ClassRow, SeparatorModelConfig
from avssl.models.weights import read_weights
from eval.pages import fill
from eval.separation import measure, page
from eval.separation.__main__ import missing
from eval.separation.runner import inherit
from eval.separation.song import STEMS
from eval.separation.sounds import Sound, loud_cut, make_pairs, read_sounds, write_weak_clips
from eval.separation.study import Study, Weak

ROOT = Path(__file__).parents[2]
RATE_HZ = 8000
NET = {"channels": [4] * 7, "rate_hz": RATE_HZ, "fft": 256, "hop": 128}


def study(**changes):
    read = Study.read(ROOT / "eval/separation/small.yaml")
    for key, value in {"held_out": 1, "pairs": 3, "mixture_s": 0.5, "classes": 3, **changes}.items():
        setattr(read, key, value)
    read.separator["model"]["separator"] = NET
    return read


@pytest.fixture
def media(tmp_path):
    """Three classes of three sounds; the n-th of a class has the level (n + 1) / 10."""
    for label, name in enumerate(("bell", "drum", "flute")):
        folder = tmp_path / "media" / "sounds_fsdk10" / name
        folder.mkdir(parents=True)
        for number in range(3):
            tone = np.sin(np.arange(6000 + 2000 * number) * (0.2 + 0.3 * label)) * (number + 1) / 10
            (folder / f"{number}.flac").write_bytes(encode_flac(tone, RATE_HZ))
    return tmp_path / "media"


def test_studies_can_be_read_and_their_digest_is_of_the_trainings():
    for name in ("full", "small"):
        read = Study.read(ROOT / f"eval/separation/{name}.yaml")
        assert read.rate_hz == read.tagger["model"]["tagger"]["rate_hz"] == 16000
    before = read.digest
    read.pairs = 1
    assert read.digest == before
    read.separator["run"]["steps"] = 1
    assert read.digest != before
    with pytest.raises(ConfigError, match="none of the kinds of queries"):
        study(conditions=["softt"]).__post_init__()


def test_the_last_sounds_of_a_class_are_held_out(media):
    sounds = read_sounds(media, study())
    assert sounds.classes == ["bell", "drum", "flute"]
    assert [(s.label, s.name) for s in sounds.train] == [(label, n) for label in range(3) for n in ("0", "1")]
    assert [(s.label, s.name) for s in sounds.held_out] == [(label, "2") for label in range(3)]
    assert len(sounds.held_out[0].waveform) == 10000


def test_weak_clips_hold_their_piece_where_the_list_says(tmp_path):
    sounds = [Sound("long", 0, 0.5 * np.ones(20000, np.float32)), Sound("short", 1, 0.5 * np.ones(1000, np.float32))]
    weak = Weak(clip_s=2.0, piece_s=1.0, hop_s=0.5, noise_db=-60.0)
    path = write_weak_clips(sounds, ["a", "b"], weak, RATE_HZ, 0, tmp_path)
    rows = read_jsonl(path)
    assert [row["label"] for row in rows] == ["a"] * 4 + ["b"]
    places = set()
    for row in rows:
        samples, rate_hz = decode_flac((tmp_path / row["path"]).read_bytes())
        assert samples.shape[1] == 2 * RATE_HZ and rate_hz == RATE_HZ
        loud = np.flatnonzero(np.asarray(samples)[0] > 0.3)
        assert (loud[0] / RATE_HZ, (loud[-1] + 1) / RATE_HZ) == (row["sound_from_s"], row["sound_to_s"])
        quiet = np.delete(np.asarray(samples)[0], loud)
        assert 20 * np.log10(quiet.std()) == pytest.approx(-60, abs=0.5)
        places.add(row["sound_from_s"])
    assert len(places) == 5


def test_pairs_are_of_held_out_sounds_of_two_classes_at_equal_energy(media):
    settings = study()
    sounds = read_sounds(media, settings)
    pairs = make_pairs(sounds.held_out, settings)
    assert pairs.mixture.shape == (9, 4000)
    assert pairs.label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (pairs.label != pairs.other_label).all()
    torch.testing.assert_close(pairs.mixture, pairs.target + pairs.other)
    torch.testing.assert_close(pairs.target.square().mean(1), pairs.other.square().mean(1))
    again = make_pairs(sounds.held_out, settings)
    assert torch.equal(pairs.mixture, again.mixture)


def test_cuts_avoid_silence():
    sound = np.zeros(50000, np.float32)
    sound[20000:26000] = 1
    random = np.random.default_rng(0)
    cuts = [loud_cut(sound, 4000, random) for _ in range(20)]
    assert sum(np.square(cut).mean() > 0.03 for cut in cuts) >= 17
    assert loud_cut(np.ones(100, np.float32), 400, random).sum() == 100


def separator(kind, features, seed=0):
    torch.manual_seed(seed)
    query = QueryConfig(kind, features, hidden=8)
    tagger = TaggerConfig("frame", 3, [4, 8], RATE_HZ, 256, 80, 16, 50.0, 3900.0)
    rows = [ClassRow(name, name, number) for number, name in enumerate(("bell", "drum", "flute"))]
    config = SeparatorModelConfig(SeparatorConfig(features, **NET), query, tagger=tagger, classes=rows, window_s=0.5)
    return SeparatorModel(config), config


@pytest.mark.parametrize(("kind", "features"), [("one_hot", 3), ("embedding", 8), ("adaptive", 8)])
def test_conditions_start_from_the_first_and_hear_their_queries_alike(media, tmp_path, kind, features):
    first, config = separator("one_hot", 3)
    torch.nn.init.normal_(first.separator.film.linear.bias)  # as if it had learned
    save_model(tmp_path / "first", first, config, card="")
    net, later = separator(kind, features, seed=1)
    settings = study()
    sounds = read_sounds(media, settings)
    inherit(tmp_path / "first", later, sounds, settings, tmp_path / "start.safetensors")
    net.load_state_dict(read_weights(tmp_path / "start.safetensors"))
    for key, tensor in first.separator.state_dict().items():
        if key != "film.linear.weight":
            assert torch.equal(net.separator.state_dict()[key], tensor), key
    net.eval(), first.eval()
    with torch.no_grad():
        queries = net.query(measure.class_features(net, sounds, settings))
        shifts, wanted = net.separator.film.linear(queries), first.separator.film.linear(torch.eye(3))
    tolerance = 0.1 if kind == "one_hot" else 0.8  # an untrained tagger's embeddings of three tones are nearly alike
    assert (shifts - wanted).norm() < tolerance * (wanted - first.separator.film.linear.bias).norm()


@pytest.mark.parametrize(("kind", "features"), [("one_hot", 3), ("soft", 3), ("embedding", 8)])
def test_judging_gives_a_number_for_every_mixture_and_query(media, tmp_path, kind, features):
    net, config = separator(kind, features)
    save_model(tmp_path / kind, net, config, card="")
    settings = study()
    sounds = read_sounds(media, settings)
    pairs = make_pairs(sounds.held_out, settings)
    found = measure.judge_separator(tmp_path / kind, pairs, sounds, settings)
    assert set(found) == {"own", "examples", "swapped", "swapped_other"}
    for values in found.values():
        assert len(values["si_sdri"]) == len(values["sdri"]) == 9 and np.isfinite(values["si_sdri"]).all()
    if kind == "one_hot":
        assert found["own"] == found["examples"]


def test_the_oracle_is_far_above_the_mixture_and_perfect_output_above_that(media):
    settings = study()
    pairs = make_pairs(read_sounds(media, settings).held_out, settings)
    bounds = measure.judge_bounds(pairs, settings)
    assert np.abs(bounds["mixture"]["si_sdr"]).max() < 1
    assert np.mean(bounds["oracle"]["si_sdri"]) > 15
    assert np.mean(measure.improvements(pairs.target, pairs)["si_sdri"]) > 90


def result(tmp_path):
    """A result file with made-up numbers."""
    kinds = ("first", "one_hot", "soft")
    stems = {stem: {"si_sdr": 1.5, "mixture_si_sdr": -3.0} for stem in STEMS}
    runs = []
    for number, kind in enumerate(kinds):
        end = {
            query: {"si_sdri": [number + sign, number + sign], "sdri": [number + sign, number + sign]}
            for query, sign in (("own", 3), ("examples", 2), ("swapped", -5), ("swapped_other", 1))
        }
        runs.append(
            {"world": "pairs", "method": kind, "seed": 0, "end": end} | ({"song": stems} if kind == "soft" else {})
        )
    machine = {"cores": 2, "cpu": "a processor", "packages": {"torch": "2"}, "commit": "abc", "date": "2026-01-01T"}
    expected = {"condition": "soft", "query": "examples", "at_least": 9.0}
    tree = {
        "environment": machine,
        "study": {**configuration.plain(study()), "expect": [expected]},
        "classes": ["bell", "Bass_drum"],
        "pairs": {"label": [0, 1], "other_label": [1, 0]},
        "bounds": {"oracle": {"si_sdri": [17.0, 18.0], "sdri": [16.0, 17.0]}, "mixture": {"si_sdr": [0.0, 0.0]}},
        "tagger": {"map": 0.8, "accuracy": 0.7, "chance_map": 0.1, "sounds": 30},
        "anchors": {"mined": 0.9, "random": 0.6},
        "training_s": {"tagger": 60.0, "first": 600.0},
        "wall_s": 1200.0,
        "runs": runs,
    }  # fmt: skip
    (tmp_path / "separation.json").write_text(json.dumps(tree))
    return tree


def test_tables_are_made_from_the_file(tmp_path):
    tree = result(tmp_path)
    names = list(page.TABLES)
    text = "".join(f"<!-- table {name} -->\n<!-- end -->\n" for name in names)
    made = re.sub(" +", " ", fill(text, tmp_path, page.TABLES, page.COMMANDS))
    assert "| soft (probabilities) | 5.0 | 4.0 | -3.0 | 3.0 | 4.0 | 4.0 |" in made
    assert "| *oracle ratio mask* | 17.5 |" in made
    assert "| Bass drum | 3.0 | 4.0 | 18.0 |" in made
    assert "| drum out of tones | 1 | 3.0 (3.0) | 4.0 (4.0) | 18.0 |" in made
    assert "| vocals | -3.0 | 4.5 |" in made
    assert "| tagger: mAP on unseen sounds | 0.800 | 0.100 |" in made
    assert "first 10.0" in made
    page.draw(tmp_path, tmp_path)
    assert (tmp_path / "separation-classes.png").stat().st_size > 1000
    (sentence,) = missing(tree)
    assert "soft, examples: 4.00 dB, at least 9.0" in sentence


def test_the_page_holds_what_its_file_gives():
    text = (ROOT / page.PAGE).read_text()
    assert text == fill(text, ROOT / page.RESULTS, page.TABLES, page.COMMANDS)
