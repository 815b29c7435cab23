"""360° clips from shards to views: what is seen and heard is where the batch says, and sources come equally often."""

import collections
import dataclasses

import numpy as np
import pytest
import torch

from avssl.data.config import AudioSpec, AugmentConfig, DataConfig, VideoSpec
from avssl.data.dataset import ClipDataset, Request
from avssl.data.loader import Loader
from avssl.data.order import Entry
from avssl.data.transforms import prepare
from avssl.errors import ConfigError
from avssl.media import decode_flac
from avssl.models.config import VideoInput
from avssl.shards import BuildOptions, ShardSet
from avssl.shards.build import build
from avssl.shards.sources import list_sources
from avssl.spatial.ambisonics import encode
from avssl.spatial.config import Switches, TurnConfig, ViewConfig
from avssl.spatial.directions import direction, rotation
from avssl.synthetic.scene360 import MANIFEST, write_scenes360
from avssl.synthetic.scene360_config import Scene360Config

RATE_HZ = 24000
SPEC = VideoInput(fps=8, frames=2, size_px=16, resize_px=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LEVEL = ViewConfig(views=2, flip=0.0, latitude_deg=(0.0, 0.0))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Four sources with rows of 0.5 s: 5, 5, 5 and (listed in part) 1; and one that is not declared."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes360(Scene360Config(clips=4, duration_s=2.5, width_px=128, seed=2), folder)
    lines = (folder / MANIFEST).read_text().splitlines()
    lines[3] = lines[3].replace('"label"', '"end_s": 0.5, "label"')
    lines[2] = lines[2].replace('"ambix"', '"none"').replace('"equirectangular"', '"none"')
    (folder / "list.jsonl").write_text("\n".join(lines))
    options = BuildOptions(clip_s=0.5, min_clip_s=0.5, short_side_px=64, audio_channels="all")
    build(list_sources(folder / "list.jsonl"), folder / "shards", options)
    return folder / "shards"


def config(folder, **options):
    options = {"views": LEVEL, "audio": AudioSpec(duration_s=0.25, channels=4), "augment": None} | options
    return DataConfig(shards=[str(folder)], video=VideoSpec(frames=2, fps=8), workers=0, offset_s=0.0, **options)


def decode(folder, rows, **options):
    dataset = ClipDataset(ShardSet.open(folder), config(folder, **options))
    return dataset.__getitems__([Request(Entry(0, row, 0)) for row in rows])


def declared(folder):
    shards = ShardSet.open(folder)
    return [row for row in range(len(shards)) if "projection" in shards.record(row)["video"]]


@pytest.mark.parametrize("pixels", ["rgb24", "yuv420p"])
def test_batches_become_views(scenes, pixels):
    rows = declared(scenes)[:3]
    outcome = decode(scenes, rows, pixels=pixels, clips=2, augment=AugmentConfig(), turn=TurnConfig())
    batch = outcome.batch
    assert not outcome.skipped and not {"crop_px", "flip"} & set(batch)
    assert batch["view_deg"].shape == (3, 2, 5) and batch["view_flip"].shape == (3, 2) and batch["turned"].shape == (3,)
    assert batch["audio"].shape == (3, 2, 4, 6000) and batch["jitter"].shape == (3, 4, 4)
    prepared = prepare(batch, SPEC, LEVEL)
    assert prepared["video"].shape == (3, 4, 3, 2, 16, 16) and prepared["audio"].shape == (3, 4, 4, 6000)
    again = decode(scenes, rows, pixels=pixels, clips=2, augment=AugmentConfig(), turn=TurnConfig()).batch
    assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_views_of_the_first_clip_come_first(scenes):
    batch = decode(scenes, declared(scenes)[:2], clips=2).batch
    whole = prepare(batch, SPEC, LEVEL)
    for clip in range(2):
        part = {
            name: value[:, clip : clip + 1] if name in ("video", "audio") else value for name, value in batch.items()
        }
        one = prepare(part, SPEC, LEVEL)
        for name in ("video", "audio"):
            torch.testing.assert_close(whole[name][:, 2 * clip : 2 * clip + 2], one[name])


def sphere(azimuth_deg, views, **options):
    """A batch of one clip whose grey tells the azimuth (0 at the seam behind, 1 before it), with noise from there."""
    grey = torch.linspace(0, 255, 256).byte().view(1, 1, 1, 1, 256, 1).expand(1, 1, 2, 128, 256, 3)
    noise = torch.randn(500, generator=torch.Generator().manual_seed(0))
    return {
        "row": torch.tensor([0]),
        "video": grey,
        "video_size_px": torch.tensor([[128, 256]], dtype=torch.int32),
        "audio": encode(noise, direction(torch.tensor(azimuth_deg)))[None, None],
        "view_deg": torch.tensor([[[a, e, 0.0, 40.0, 40.0] for a, e in views]]),
        "view_flip": torch.zeros(1, len(views), dtype=torch.bool),
    } | options


def test_a_view_shows_and_hears_what_lies_there():
    views = [(90.0, 0.0), (-45.0, 0.0)]
    prepared = prepare(sphere(90.0, views), SPEC, LEVEL)
    centres = prepared["video"][0, :, 0, 0, 7:9, 7:9].mean((1, 2))
    torch.testing.assert_close(centres, torch.tensor([0.25, 0.625]), atol=0.01, rtol=0)
    w, y, z, x = prepared["audio"][0, 0]
    torch.testing.assert_close(x, w)
    torch.testing.assert_close(torch.stack([y, z]), torch.zeros(2, 500), atol=1e-5, rtol=0)
    _, y, _, x = prepared["audio"][0, 1]  # 135° to the left of where it looks
    torch.testing.assert_close(x, -y, atol=1e-5, rtol=1e-4)


def test_flips_mirror_picture_and_sound_or_the_picture_alone():
    batch = sphere(120.0, [(90.0, 0.0)])
    flipped = batch | {"view_flip": torch.ones(1, 1, dtype=torch.bool)}
    plain, both = prepare(batch, SPEC, LEVEL), prepare(flipped, SPEC, LEVEL)
    torch.testing.assert_close(both["video"], plain["video"].flip(-1), atol=0.005, rtol=0)
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None]
    torch.testing.assert_close(both["audio"], plain["audio"] * signs)
    released = dataclasses.replace(LEVEL, switches=Switches(flip="released"))
    alone = prepare(flipped, SPEC, released)
    torch.testing.assert_close(alone["video"], both["video"])
    torch.testing.assert_close(alone["audio"], plain["audio"])


def test_turning_picture_and_sound_together_is_looking_elsewhere():
    batch = sphere(90.0, [(30.0, 0.0)])
    turned = batch | {"video": batch["video"].roll(128, -2), "turn": rotation(torch.tensor([180.0]))}
    there = prepare(turned | {"view_deg": sphere(0.0, [(210.0, 0.0)])["view_deg"]}, SPEC, LEVEL)
    here = prepare(batch, SPEC, LEVEL)
    torch.testing.assert_close(there["video"], here["video"], atol=0.005, rtol=0)
    torch.testing.assert_close(there["audio"], here["audio"], atol=1e-4, rtol=0)
    alone = prepare(batch | {"turn": turned["turn"]}, SPEC, LEVEL)
    assert not torch.allclose(alone["audio"], here["audio"], atol=0.1)


@pytest.mark.parametrize(("hearing", "channels"), [("mono", 1), ("stereo", 2), ("ambisonics", 4)])
def test_what_a_view_hears(hearing, channels):
    batch = sphere(90.0, [(90.0, 0.0), (-90.0, 0.0)])
    heard = prepare(batch, SPEC, LEVEL, hearing)["audio"]
    assert heard.shape == (1, 2, channels, 500)
    if hearing == "mono":
        torch.testing.assert_close(heard[0, 1], torch.zeros(1, 500), atol=1e-5, rtol=0)  # it looks away
    config("x", hearing=hearing, audio=AudioSpec(channels=channels))
    with pytest.raises(ConfigError, match=r"data\.audio\.channels is 3"):
        config("x", hearing=hearing, audio=AudioSpec(channels=3))


def test_undeclared_rows_are_skipped_by_name(scenes):
    shards = ShardSet.open(scenes)
    plain = next(row for row in range(len(shards)) if row not in declared(scenes))
    outcome = decode(scenes, [declared(scenes)[0], plain])
    assert [(skipped.row, skipped.reason) for skipped in outcome.skipped] == [(plain, "projection")]
    assert len(outcome.batch["row"]) == 1


def test_one_channel_of_ambisonics_is_the_omnidirectional_one_and_spheres_stay_whole(scenes):
    shards, row = ShardSet.open(scenes), declared(scenes)[0]
    video = VideoSpec(frames=2, fps=8, max_aspect=1.0)
    dataset = ClipDataset(
        shards, dataclasses.replace(config(scenes, views=None, audio=AudioSpec(duration_s=0.5)), video=video)
    )
    plain = next(row for row in range(len(shards)) if row not in declared(scenes))
    batch = dataset.__getitems__([Request(Entry(0, row, 0)), Request(Entry(0, plain, 0))]).batch
    assert batch["video_size_px"].tolist() == [[64, 128], [64, 64]]
    for number, (found, stored) in enumerate((r, decode_flac(shards.read(r, "flac"))[0]) for r in (row, plain)):
        expected = stored[0] if number == 0 else stored.mean(0)
        heard = batch["audio"][number, 0, 0].numpy()
        np.testing.assert_allclose(heard[:11000], expected[:11000], atol=1e-6, err_msg=str(found))


def rows_drawn(loader, samples):
    return np.concatenate([next(loader)["row"].numpy() for _ in range(samples // loader.config.batch_size)]).tolist()


def test_sources_come_equally_often_and_all_their_rows(scenes):
    options = {"views": None, "audio": AudioSpec(duration_s=0.25, optional=True), "sample_by": "source"}
    loader = Loader(config(scenes, **options, draws_per_row=10, batch_size=8))
    assert "drawn by source, of which there are 4" in loader.summary and len(loader.rows) == 16
    rows = rows_drawn(loader, 120)
    sources = [loader.shards.record(row)["source"] for row in rows]
    assert set(collections.Counter(sources[:40]).values()) == {10}
    assert len(set(rows)) == 16
    # Another number of processes, and a start in the middle, draw the same.
    later = Loader(config(scenes, **options, draws_per_row=10, batch_size=8))
    later.load_state_dict(loader.state_dict() | {"position": 40})
    assert rows_drawn(later, 80) == rows[40:]
    parts = [
        rows_drawn(Loader(config(scenes, **options, draws_per_row=10, batch_size=8), rank=rank, world_size=2), 80)
        for rank in range(2)
    ]
    halves = zip(np.reshape(parts[0], (-1, 4)), np.reshape(parts[1], (-1, 4)), strict=True)
    assert np.concatenate([half for pair in halves for half in pair]).tolist() == rows[:80]


def test_columns_of_the_list_group_too(scenes):
    loader = Loader(config(scenes, views=None, audio=None, sample_by="clip"))
    assert [len(group) for group in loader.groups] == [5, 5, 5, 1]
    with pytest.raises(ConfigError, match=r"data\.sample_by is 'singer'"):
        Loader(config(scenes, views=None, audio=None, sample_by="singer"))
    with pytest.raises(ConfigError, match="needs random access"):
        config(scenes, sample_by="source", reader="webdataset")


def test_a_loader_changes_its_batches_where_it_stands(scenes):
    options = {"audio": AudioSpec(duration_s=0.25, channels=4), "max_skipped": 1.0}
    loader = Loader(config(scenes, **options, batch_size=4))
    next(loader)
    loader.change(batch_size=2, views=None)
    batches = [next(loader) for _ in range(4)]
    assert loader.position == 12 and "view_deg" not in batches[0]
    other = Loader(config(scenes, **options | {"views": None}, batch_size=8), position=4)
    assert next(other)["row"].tolist() == torch.cat([batch["row"] for batch in batches]).tolist()
