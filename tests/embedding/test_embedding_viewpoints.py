"""360° video in a table: a row for each viewpoint, seen and heard as the model's own views; plain video as ever."""

import json

import numpy as np
import pytest
import torch
from tiny_media import save_tiny_model

import avssl
from avssl.cli import embed as command
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.embedding.viewpoints import Viewpoints
from avssl.errors import UsageError
from avssl.media import MediaWriter
from avssl.models.config import AudioInput, FrontEndConfig, ModelConfig, TowerConfig, VideoInput
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
from avssl.spatial.ambisonics import encode
from avssl.spatial.directions import direction
from avssl.spatial.formats import from_ambix
from avssl.spatial.hear import hear
from avssl.spatial.views import see

RATE_HZ = 24000
SIZE_PX = (64, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Random towers that take four frames of 32 px and half a second of four channels."""
    config = ModelConfig(
        video=TowerConfig("tiny_video"),
        audio=TowerConfig("tiny_audio"),
        video_input=VideoInput(8.0, 4, 32, 36, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        audio_input=AudioInput(RATE_HZ, 0.5, 4, FrontEndConfig("log_mel")),
        head=None,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    save_model(path, TwoTower(config), config, card="# random weights, for tests\n")
    return path


@pytest.fixture(scope="module")
def model(folder):
    return avssl.load(folder)


def scene(turn_deg=0.0):
    """A still sphere with a bright column at 40° to the left, and noise from there; both turned."""
    picture = np.zeros((*SIZE_PX, 3), np.uint8)
    picture[..., 2] = np.linspace(20, 120, SIZE_PX[0], dtype=np.uint8)[:, None]
    column = round((0.5 - (40 + turn_deg) / 360) % 1 * SIZE_PX[1])
    picture[16:48, [(column + n) % SIZE_PX[1] for n in range(-6, 6)], 0] = 250
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(RATE_HZ).astype(np.float32) * 0.1)
    return picture, encode(noise, direction(40.0 + turn_deg))


def write_sphere(path, turn_deg=0.0, layout="ambix"):
    picture, sound = scene(turn_deg)
    samples = from_ambix(sound, layout).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with MediaWriter(path) as writer:
        video = writer.add_video(SIZE_PX, 8.0, options={"crf": "4"})
        audio = writer.add_audio(RATE_HZ, len(samples), codec="flac", layout="5.1" if len(samples) == 6 else "4.0")
        for _ in range(8):
            video.write(picture)
        audio.write(samples)
    return path


def rows_of(model, source, output, points, **options):
    options = options_for(model, window_s=1.0, hop_s=1.0, spatial=points, **options)
    report = embed_to_file(model, find_units([source]), output, options)
    assert report.failed == [], report.failed
    with np.load(output, allow_pickle=False) as rows:
        return {name: rows[name] for name in rows.files}


def test_a_row_for_each_viewpoint_is_what_is_seen_and_heard_there(model, tmp_path):
    rows = rows_of(model, write_sphere(tmp_path / "s.mp4"), tmp_path / "o.npz", Viewpoints("ambix", 4, 60.0))
    assert rows["view"].tolist() == [0, 1, 2, 3]
    assert rows["azimuth_deg"].tolist() == [0, 90, 180, -90]
    assert rows["elevation_deg"].tolist() == [0] * 4 and rows["fov_deg"].tolist() == [60] * 4
    assert rows["has_video"].all() and rows["has_audio"].all()
    assert np.linalg.norm(rows["video"], axis=1) == pytest.approx(1.0)
    assert json.loads(str(rows["meta"]))["spatial"] == {"ambisonics": "ambix", "count": 4, "fov_deg": 60.0}
    picture, sound = scene()
    views = torch.tensor([[[azimuth, 0.0, 0.0, 60.0, 60.0] for azimuth in (0.0, 90.0, 180.0, -90.0)]])
    with torch.no_grad():
        frames = see(torch.from_numpy(picture).expand(1, 4, *SIZE_PX, 3), views, (32, 32))[0]
        pixels = (frames.permute(0, 4, 1, 2, 3).float() / 255 - 0.5) / 0.25
        seen = torch.nn.functional.normalize(model.model.video_features(pixels), dim=-1).numpy()
        # Two windows of half a second lie in a second; so does the noise, whose halves differ.
        heard = [
            torch.nn.functional.normalize(model.model.audio_features(half), dim=-1)
            for half in hear(sound[None], views)[0].split(RATE_HZ // 2, -1)
        ]
    mean = torch.nn.functional.normalize(sum(heard), dim=-1).numpy()
    assert (rows["video"] * seen).sum(1) == pytest.approx(1.0, abs=0.01)
    assert (rows["audio"] * mean).sum(1) == pytest.approx(1.0, abs=1e-3)


def test_a_turned_scene_gives_the_same_rows_at_other_directions(model, tmp_path):
    """Turned by 90° to the left, what was ahead (view 0) is now on the left (view 1)."""
    points = Viewpoints("youtube", 4, 90.0)
    as_is = rows_of(model, write_sphere(tmp_path / "a.mp4", layout="youtube"), tmp_path / "a.npz", points)
    turned = rows_of(model, write_sphere(tmp_path / "b.mp4", 90.0, "youtube"), tmp_path / "b.npz", points)
    for kind, tolerance in (("video", 0.02), ("audio", 1e-3)):
        alike = (np.roll(as_is[kind], 1, axis=0) * turned[kind]).sum(1)
        assert alike == pytest.approx(1.0, abs=tolerance)
        assert (as_is[kind] * turned[kind]).sum(1).min() < alike.min(), "and other rows at the same ones"


def test_packed_clips_say_themselves_what_they_are(model, tmp_path):
    write_sphere(tmp_path / "in" / "s.mp4", layout="fuma")
    options = BuildOptions(
        clip_s=1.0, short_side_px=64, fps=8.0, crf=4, ambisonics="fuma", projection="equirectangular"
    )
    build(list_sources(tmp_path / "in"), tmp_path / "shards", options, workers=1)
    points = Viewpoints("declared", 3)
    packed = rows_of(model, tmp_path / "shards", tmp_path / "p.npz", points)
    file = rows_of(model, tmp_path / "in" / "s.mp4", tmp_path / "f.npz", Viewpoints("fuma", 3))
    assert packed["azimuth_deg"].tolist() == file["azimuth_deg"].tolist() == [0, 120, -120]
    for kind in ("video", "audio"):
        assert (packed[kind] * file[kind]).sum(1) == pytest.approx(1.0, abs=0.03)
    plain = BuildOptions(clip_s=1.0, short_side_px=64, fps=8.0, audio_channels="all")
    build(list_sources(tmp_path / "in"), tmp_path / "plain", plain, workers=1)
    spatial = options_for(model, spatial=points)
    report = embed_to_file(model, find_units([tmp_path / "plain"]), tmp_path / "x.npz", spatial)
    assert report.rows == 0 and report.failed[0]["reason"] == "undeclared"


def test_what_a_file_does_not_say_is_not_guessed(model, tmp_path):
    path = write_sphere(tmp_path / "s.mp4")
    declared = options_for(model, spatial=Viewpoints("declared"))
    report = embed_to_file(model, find_units([path]), tmp_path / "o.npz", declared)
    assert report.rows == 0 and report.failed[0]["reason"] == "undeclared"
    wrong = options_for(model, spatial=Viewpoints("youtube"))
    report = embed_to_file(model, find_units([path]), tmp_path / "o.npz", wrong)
    assert report.failed[0]["reason"] == "not-ambisonic"


def test_plain_tables_have_no_viewpoints_and_do_not_mix_with_others(model, tmp_path):
    path = write_sphere(tmp_path / "s.mp4")
    rows = rows_of(model, path, tmp_path / "o.npz", None)
    assert not {"view", "azimuth_deg", "fov_deg"} & set(rows) and json.loads(str(rows["meta"]))["spatial"] is None
    rows_of(model, path, tmp_path / "s.npz", Viewpoints("ambix"))
    for name, points in (("o", Viewpoints("ambix")), ("s", None), ("s", Viewpoints("ambix", 3))):
        options = options_for(model, window_s=1.0, hop_s=1.0, spatial=points)
        with pytest.raises(UsageError, match="spatial"):
            embed_to_file(model, find_units([path]), tmp_path / f"{name}.npz", options)


def test_the_command(folder, tmp_path, capsys):
    path = write_sphere(tmp_path / "s.mp4")
    with pytest.raises(SystemExit) as ended:
        command.main([
            str(path), "-o", str(tmp_path / "o.parquet"), "--model", str(folder), "--spatial", "ambix",
            "--viewpoints", "2", "--fov", "75", "--window", "1", "--pool", "mean", "--json",
        ])  # fmt: skip
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 2
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "o.parquet").to_pydict()
    assert table["azimuth_deg"] == [0.0, 180.0] and table["fov_deg"] == [75.0, 75.0]
    with pytest.raises(SystemExit) as ended:
        command.main([str(path), "-o", str(tmp_path / "p.npz"), "--spatial", "guess"])
    assert ended.value.code == 2


def test_a_mono_model_hears_each_front(tmp_path):
    model = avssl.load(save_tiny_model(tmp_path / "model"))
    rows = rows_of(
        model, write_sphere(tmp_path / "s.mp4"), tmp_path / "o.npz", Viewpoints("ambix", 4), modalities=["audio"]
    )
    assert rows["audio"].shape == (4, 16)


def test_the_real_chart_clip(media_dir, tmp_path):
    """Piano from the left, a voice from the right: a model that hears the front of each view tells them apart."""
    clip = media_dir / "spatial" / "chart_piano-left_voice-right_gulls-up.mp4"
    model = avssl.load(save_tiny_model(tmp_path / "model"))
    rows = rows_of(model, clip, tmp_path / "o.npz", Viewpoints("youtube", 4), pool="mean")
    assert rows["azimuth_deg"].tolist() == [0, 90, 180, -90] and rows["has_video"].all()
    alike = rows["audio"] @ rows["audio"].T
    assert alike[1, 3] < min(alike[0, 1], alike[0, 3])


def test_opposite_directions_sound_alike_to_a_model_of_four_channels(folder, media_dir, tmp_path):
    """Its spectra have magnitudes alone, so that the signs of X and Y, which a turn by 180° changes, are lost."""
    clip = media_dir / "spatial" / "chart_piano-left_voice-right_gulls-up.mp4"
    points = Viewpoints("youtube", 4)
    rows = rows_of(avssl.load(folder), clip, tmp_path / "o.npz", points, pool="mean", modalities=["audio"])
    alike = rows["audio"] @ rows["audio"].T
    assert min(alike[0, 2], alike[1, 3]) > 0.999
    assert alike[0, 1] < 0.99
