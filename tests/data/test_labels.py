"""Weakly labelled shards: labels as numbers, class-balanced drawing, anchors, speed."""

import numpy as np
import pytest

from avssl import files
from avssl.data.anchors import AnchorTable
from avssl.data.augment import played_faster
from avssl.data.config import AnchorConfig, AudioSpec, AugmentConfig, DataConfig
from avssl.data.dataset import ClipDataset, Request
from avssl.data.labels import Labels
from avssl.data.loader import Loader
from avssl.data.order import Entry, in_turn
from avssl.errors import ConfigError, ShardError
from avssl.media.flac import encode_flac
from avssl.shards import ShardSet
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources

RATE_HZ = 8000
CLASSES = {"dog": 0, "/m/dog": 0, "Church bell": 1, "rain": 2, "never": 3}
ROWS = [["dog"], ["/m/dog", "rain"], ["church_bell"], ["rain"], ["rain", "spoon"], ["spoon"], ["dog", "rain"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven sounds of 2 s; the n-th is a ramp from n / 10 to n / 10 + 0.05, so that a sample tells row and moment."""
    root = tmp_path_factory.mktemp("labelled")
    for number in range(len(ROWS)):
        ramp = number / 10 + 0.05 * np.arange(2 * RATE_HZ) / (2 * RATE_HZ)
        (root / f"{number}.flac").write_bytes(encode_flac(ramp, RATE_HZ))
    rows = [{"path": f"{n}.flac", "labels": labels, "label": labels[0]} for n, labels in enumerate(ROWS)]
    files.write_jsonl(root / "list.jsonl", rows)
    build(list_sources(root / "list.jsonl"), root / "shards", BuildOptions(audio_rate_hz=RATE_HZ))
    return root / "shards"


def config(folder, **options):
    audio = AudioSpec(RATE_HZ, options.pop("duration_s", 0.5))
    settings = {"labels": "labels", "video": None, "audio": audio, "augment": None, "workers": 0, "batch_size": 4}
    return DataConfig(shards=[str(folder)], **{**settings, **options})


def test_labels_are_numbers_whatever_their_case_or_form(folder):
    labels = Labels(ShardSet.open(folder), "labels", CLASSES)
    assert labels.count == 4
    assert [labels.of(row) for row in range(7)] == [(0,), (0, 2), (1,), (2,), (2,), (), (0, 2)]
    assert labels.known.tolist() == [True] * 5 + [False, True]
    assert labels.unknown == {"spoon": 2}
    assert labels.target(1).tolist() == [1, 0, 1, 0]
    assert {k: v.tolist() for k, v in labels.by_class(np.arange(7)).items()} == {0: [0, 1, 6], 1: [2], 2: [1, 3, 4, 6]}
    assert Labels(ShardSet.open(folder), "label", CLASSES).of(6) == (0,)


def test_labels_that_name_no_class_are_refused(folder):
    with pytest.raises(ConfigError, match=r"no row is labelled with a class of the model.*'dog'"):
        Labels(ShardSet.open(folder), "labels", {"dot": 0})
    with pytest.raises(ConfigError, match="it has no labels"):
        Labels(ShardSet.open(folder), "genre", CLASSES)
    with pytest.raises(ConfigError, match="this model has no classes"):
        Loader(config(folder))


def test_batches_carry_targets_and_rows_without_a_class_are_left_out(folder):
    loader = Loader(config(folder, shuffle=False), endless=False, classes=CLASSES)
    batches = list(loader)
    rows = [row for batch in batches for row in batch["row"].tolist()]
    assert rows == [0, 1, 2, 3, 4, 6] and "1 without a known class left out (1 unknown labels" in loader.summary
    for batch in batches:
        for row, target, drawn in zip(batch["row"].tolist(), batch["target"], batch["drawn_class"], strict=True):
            assert target.sum() == len({CLASSES.get(name, 1) for name in ROWS[row] if name != "spoon"})
            assert target[drawn] == 1


def test_classes_come_equally_often_and_their_rows_in_turn(folder):
    loader = Loader(config(folder, sample_by="class", batch_size=3), classes=CLASSES)
    rows: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for _ in range(24):
        batch = next(loader)
        assert sorted(batch["drawn_class"].tolist()) == [0, 1, 2]  # a batch as large as the number of classes
        for row, drawn in zip(batch["row"].tolist(), batch["drawn_class"].tolist(), strict=True):
            rows[drawn].append(row)
    assert set(rows[1]) == {2}
    for drawn, members in ((0, [0, 1, 6]), (2, [1, 3, 4, 6])):
        rounds = [rows[drawn][start : start + len(members)] for start in range(0, 24, len(members))]
        assert all(sorted(part) == members for part in rounds)  # all of them before any comes again
        assert len({tuple(part) for part in rounds}) > 1  # in another order each time

    resumed = Loader(config(folder, sample_by="class", batch_size=3), classes=CLASSES)
    resumed.load_state_dict(loader.state_dict())
    assert next(resumed)["row"].tolist() == next(loader)["row"].tolist()
    other = Loader(config(folder, sample_by="class", batch_size=3), classes={**CLASSES, "cat": 4})
    with pytest.raises(ShardError, match="its classes was"):
        other.load_state_dict(loader.state_dict())


def test_in_turn_is_a_pure_function_and_differs_between_groups_and_seeds():
    first = [in_turn(0, 0, visit, 50) for visit in range(50)]
    assert sorted(first) == list(range(50)) and first == [in_turn(0, 0, visit, 50) for visit in range(50)]
    for seed, group in ((0, 1), (1, 0)):
        assert first != [in_turn(seed, group, visit, 50) for visit in range(50)]


def test_anchors_say_what_is_heard(folder, tmp_path):
    path = tmp_path / "anchors.npz"
    AnchorTable({(1, 0): 0.25, (1, 2): 1.5, (3, 2): 1.75}).write(path)
    table = AnchorTable.read(path)
    assert len(table) == 3 and table.start_s(1, 2) == 1.5 and table.start_s(0, 0) is None
    shards = ShardSet.open(folder)
    labels = Labels(shards, "labels", CLASSES)
    data = config(folder, anchors=AnchorConfig(tagger="unused", clip_s=2.0))
    dataset = ClipDataset(shards, data, labels, table)

    def sample(row, drawn):
        return dataset.sample(Request(Entry(0, row, 0), drawn_class=drawn))

    for row, drawn, start_s in ((1, 0, 0.25), (1, 2, 1.5)):
        heard = sample(row, drawn)
        expected = row / 10 + 0.05 * (start_s + np.arange(RATE_HZ // 2) / RATE_HZ) / 2
        np.testing.assert_allclose(heard.audio[0, 0], expected, atol=1e-4)
        assert heard.augmentation["drawn_class"] == drawn
    late = sample(3, 2).audio[0, 0]
    assert (late[: RATE_HZ // 4] > 0.3).all() and (late[RATE_HZ // 4 :] == 0).all()  # beyond the clip's end: silence
    outcome = dataset.__getitems__([Request(Entry(0, 0, 0), drawn_class=0)])
    assert outcome.batch is None and outcome.skipped[0].reason == "no-anchor"

    path.write_bytes(b"PK broken")
    with pytest.raises(ShardError, match="delete it, and it is mined again"):
        AnchorTable.read(path)
    with pytest.raises(ShardError, match="no such table of anchors"):
        AnchorTable.read(tmp_path / "none.npz")


def test_played_faster_is_higher_and_keeps_its_level():
    t = np.arange(4000) / RATE_HZ
    slow = np.sin(2 * np.pi * 400 * t)[None].astype(np.float32)
    fast = played_faster(slow, 3200)
    expected = np.sin(2 * np.pi * 400 * 1.25 * np.arange(3200) / RATE_HZ)
    assert fast.shape == (1, 3200)
    np.testing.assert_allclose(fast[0, 100:-100], expected[100:-100], atol=1e-3)
    back = played_faster(fast, 4000)
    np.testing.assert_allclose(back, slow, atol=1e-4)
    high = np.sin(2 * np.pi * 3800 * t)[None].astype(np.float32)
    assert np.abs(played_faster(high, 2000)).max() < 0.01  # would be beyond half the rate: gone, not folded


def test_speed_is_drawn_around_the_middle_of_the_window(folder):
    shards = ShardSet.open(folder)
    labels = Labels(shards, "labels", CLASSES)
    data = config(folder, augment=AugmentConfig(speed=(1.25, 1.25), gain=(1.0, 1.0)), anchors=AnchorConfig("unused"))
    dataset = ClipDataset(shards, data, labels, AnchorTable({(1, 0): 0.5}))
    heard = dataset.sample(Request(Entry(0, 1, 0), drawn_class=0)).audio[0, 0]
    middle_s = 0.5 + 0.25
    assert heard[RATE_HZ // 4] == pytest.approx(0.1 + 0.05 * middle_s / 2, abs=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": None, "sample_by": "class"}, "need data.labels"),
        ({"anchors": AnchorConfig("t"), "clips": 2}, "one a sample"),
        ({"sample_by": "class", "reader": "webdataset"}, "random access"),
    ],
)
def test_refuses_what_does_not_go_together(options, message):
    with pytest.raises(ConfigError, match=message):
        config("x", **options)
