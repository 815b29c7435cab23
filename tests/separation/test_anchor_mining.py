"""The table of anchors: found where the sound is, made once, refused where tagger and data do not fit."""

import numpy as np
import pytest
import torch

from avssl import files
from avssl.data.anchors import AnchorTable
from avssl.data.config import AnchorConfig, AudioSpec, DataConfig
from avssl.data.loader import Loader
from avssl.errors import ConfigError
from avssl.media.flac import encode_flac
from avssl.models.cnn14 import create_tagger
from avssl.models.folder import save_model
from avssl.models.separation_config import TaggerConfig
from avssl.models.sound_config import ClassRow, TaggerModelConfig
from avssl.separation.anchor_mining import mine
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources

RATE_HZ = 8000
CLASSES = {"burst": 0, "other": 1}
PLACES_S = [0.3, 1.5, 2.6]  # where the bursts of 0.5 s begin in clips of 4 s
NET = TaggerConfig("frame", classes=2, channels=[4], rate_hz=RATE_HZ, fft=256, hop=80, bands=8, high_hz=3900)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bursts")
    random = np.random.default_rng(0)
    rows = []
    for number, place_s in enumerate(PLACES_S):
        clip = 1e-4 * random.standard_normal(4 * RATE_HZ)
        clip[round(place_s * RATE_HZ) :][: RATE_HZ // 2] += 0.1 * random.standard_normal(RATE_HZ // 2)
        (root / f"{number}.flac").write_bytes(encode_flac(clip, RATE_HZ))
        rows.append({"path": f"{number}.flac", "labels": ["burst", "other"] if number == 2 else ["burst"]})
    files.write_jsonl(root / "list.jsonl", rows)
    build(list_sources(root / "list.jsonl"), root / "shards", BuildOptions(audio_rate_hz=RATE_HZ))
    tagger(root / "loud")
    tagger(root / "clip", decision="clip")
    tagger(root / "other", names=("burst", "another"))
    return root


def tagger(out, decision="frame", names=("burst", "other")):
    """By its weights, class 0 is the likelier the louder it is; class 1 never changes."""
    config = TaggerConfig(**{**vars(NET), "decision": decision})
    net = create_tagger(config)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for block in (net.conv_block1,):
            block.conv1.weight[0, 0, 1, 1] = block.conv2.weight[0, 0, 1, 1] = 1
            block.bn1.weight.fill_(1)
            block.bn2.weight.fill_(1)
        net.bn0.weight.fill_(0.1)
        net.bn0.bias.fill_(7)
        net.fc1.weight[0, 0] = 1
        net.fc_audioset.weight[0, 0] = 1
        net.fc_audioset.bias.fill_(-5)
    rows = [ClassRow(name, name, number) for number, name in enumerate(names)]
    save_model(out, net, TaggerModelConfig(config, rows), card="")


def data(folder, name="loud", **options):
    anchors = AnchorConfig(str(folder / name), **options)
    audio = AudioSpec(RATE_HZ, 1.0)
    return DataConfig([str(folder / "shards")], video=None, audio=audio, labels="labels", anchors=anchors, workers=0,
                      augment=None, sample_by="class", batch_size=2)  # fmt: skip


def test_segments_lie_where_the_sound_is_and_are_found_once(folder):
    said = []
    path = mine(data(folder, clip_s=4.0), CLASSES, say=said.append)
    assert path.parent == folder / "shards" and len(said) == 2
    table = AnchorTable.read(path)
    assert len(table) == 4  # (row, class)
    for row, place_s in enumerate(PLACES_S):
        assert table.start_s(row, 0) == pytest.approx(place_s - 0.25, abs=0.06)  # the burst in the middle
    before = path.stat().st_mtime_ns
    assert mine(data(folder, clip_s=4.0), CLASSES, say=said.append) == path
    assert len(said) == 2 and path.stat().st_mtime_ns == before

    batch = next(Loader(data(folder, clip_s=4.0), classes=CLASSES))
    for row, drawn, sound in zip(batch["row"].tolist(), batch["drawn_class"].tolist(), batch["audio"], strict=True):
        assert sound.shape == (1, 1, RATE_HZ)
        if drawn == 0:
            loud = (sound[0, 0].abs() > 0.01).nonzero()
            assert len(loud) > 3000, row  # the whole burst

    first = mine(data(folder, clip_s=4.0, ties="first"), CLASSES)
    assert first != path  # another table for other settings
    assert AnchorTable.read(first).start_s(1, 0) <= table.start_s(1, 0)


def test_a_short_clip_is_padded(folder):
    table = AnchorTable.read(mine(data(folder, clip_s=6.0), CLASSES))
    assert table.start_s(1, 0) == pytest.approx(1.25, abs=0.06)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip", {}, "decides by clip"),
        ("other", {}, "its classes are not those of model.classes"),
        ("loud", {"clip_s": 1.0}, "make it longer"),
        ("none", {}, r"none.model.safetensors cannot be read"),
    ],
)
def test_refuses_what_does_not_fit(folder, name, options, message):
    with pytest.raises(ConfigError, match=message):
        mine(data(folder, name, **options), CLASSES)
