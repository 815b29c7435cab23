"""Scenes as features: what is drawn, that turned sound is turned sound, and what fits a picture."""

import dataclasses

import pytest
import torch
from scene_shards import tiny_model

from avssl.errors import ConfigError, ModelError
from avssl.evaluation.alignment import alignment_scores, scores_over_turns
from avssl.evaluation.scene_config import SceneData
from avssl.evaluation.scene_page import page_views
from avssl.evaluation.scenes import SceneReader, first_views, read_scenes, scene_data, with_transformer
from avssl.models.config import ModelConfig
from avssl.spatial.ambisonics import rotate
from avssl.spatial.config import Switches, ViewConfig
from avssl.spatial.directions import rotation

VIEWS = ViewConfig(views=3, flip=0.0)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def data(model, scene_shards):
    return scene_data(model.config, [str(scene_shards)], VIEWS, draws=2, batch_size=4)


def test_a_table_has_every_draw_and_repeats(model, data):
    scenes, skipped = read_scenes(model, data)
    assert skipped == [] and scenes.draws == 12
    assert scenes.video.shape == scenes.audio.shape == scenes.turned.shape == (12, 3, 256)
    assert sorted(scenes.row.tolist()) == sorted([*range(6)] * 2)
    assert len(set(zip(scenes.row.tolist(), scenes.group.tolist(), strict=True))) == 6, "a source is a group"
    assert scenes.turn_deg.abs().max() <= 180 and scenes.turn_deg.std() > 40
    again, _ = read_scenes(model, dataclasses.replace(data, workers=0, batch_size=5))
    order, other = scenes.turn_deg.argsort(), again.turn_deg.argsort()
    torch.testing.assert_close(scenes.turned[order], again.turned[other], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(first_views(scenes, 1).video, scenes.video[:, :1])
    with pytest.raises(ConfigError, match="5 views were asked"):
        first_views(scenes, 5)


def test_turned_sound_is_that_of_a_turned_scene(model, data):
    """The features of the turned sound are those of a scene that was turned beforehand by the angle in the table."""
    reader = SceneReader(data)
    batch = next(reader.loader)
    from avssl.evaluation.scenes import encode

    with torch.no_grad():
        as_is = encode(model, batch, data, reader.groups, "cpu")
        before = rotate(batch["audio"], rotation(as_is.turn_deg)[:, None])
        turned = encode(model, batch | {"audio": before}, data, reader.groups, "cpu")
    reader.loader.close()
    error = (turned.audio - as_is.turned).abs().max()  # features of random towers are small
    assert error < (as_is.audio - as_is.turned).abs().max() / 50


def test_with_a_transformer_the_picture_becomes_the_sound_that_is_predicted(model, data):
    scenes, _ = read_scenes(model, data)
    with torch.no_grad():
        found = with_transformer(model, scenes)
        torch.testing.assert_close(found.video, model.aligner.v2a_transformer(scenes.video))
    assert torch.equal(found.audio, scenes.audio)
    with pytest.raises(ModelError, match="depth is null"):
        with_transformer(tiny_model(depth=None), scenes)


def test_settings_come_from_the_model(model, scene_shards):
    released = tiny_model(switches=dataclasses.asdict(Switches.released())).config
    found = scene_data(released, [str(scene_shards)], ViewConfig(flip=0.0))
    assert found.views.switches == Switches.released() and found.views.flip == 0
    assert (found.video.frames, found.audio.channels, found.hearing) == (8, 4, "ambisonics")
    with pytest.raises(ConfigError, match="differ from the model's"):
        scene_data(model.config, [str(scene_shards)], ViewConfig(flip=0.0, switches=Switches.released()))
    mono = ModelConfig.from_dict(model.config.to_dict())
    mono.audio_input.channels = 1
    assert scene_data(mono, [str(scene_shards)], VIEWS).hearing == "mono"
    mono.audio_input.channels = 3
    with pytest.raises(ModelError, match="takes 3 sound channels"):
        scene_data(mono, [str(scene_shards)], VIEWS)
    with pytest.raises(ConfigError, match="not mirrored"):
        SceneData(train=["a"], test=["b"], views=ViewConfig())


def test_unreadable_clips_are_named(model, scene_shards, tmp_path):
    import shutil

    copy = tmp_path / "shards"
    shutil.copytree(scene_shards, copy)
    from avssl.shards.read import ShardSet

    shards = ShardSet.open(copy)
    offset, size = shards.record(2)["members"]["mp4"]
    with shards.path(0).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    scenes, skipped = read_scenes(model, scene_data(model.config, [str(copy)], VIEWS))
    assert sorted(scenes.row.tolist()) == [0, 1, 3, 4, 5]
    assert len(skipped) == 1 and skipped[0]["item"].startswith(shards.record(2)["id"]) and skipped[0]["cause"]


@pytest.mark.parametrize("depth", [None, 0, 2])
def test_scores_are_cosines_of_what_is_predicted_and_there(depth):
    model = tiny_model(depth=depth)
    torch.manual_seed(1)
    video, sounds = torch.randn(4, 256), torch.randn(3, 4, 256)
    with torch.no_grad():
        found = alignment_scores(model, video, sounds)
        aligner = model.aligner
        for sound, score in zip(sounds, found, strict=True):
            if depth is None:
                pairs = [(aligner.video_head(video), aligner.audio_head(sound))]
            else:
                heard, seen = aligner.v2a_transformer(video[None])[0], aligner.a2v_transformer(sound[None])[0]
                pairs = [
                    (aligner.audio_pred_head(heard), aligner.audio_head(sound)),
                    (aligner.video_pred_head(seen), aligner.video_head(video)),
                ]
            slow = [a[k] @ b[k] / a[k].norm() / b[k].norm() for a, b in pairs for k in range(4)]
            assert score.item() == pytest.approx(torch.stack(slow).mean().item(), abs=1e-5)


def test_turning_picture_and_sound_together_changes_nothing(model, data):
    """By 90°, which takes the page's views to themselves."""
    batch = next(SceneReader(data).loader)
    frames, sound = batch["video"][0, 0], batch["audio"][0, 0]
    turns = torch.stack([rotation(0.0), rotation(90.0)])
    alone = scores_over_turns(model, data, frames, sound, page_views(), turns)
    rolled = frames.roll(-frames.shape[2] // 4, 2)  # what was ahead is now on the left
    both = scores_over_turns(model, data, rolled, sound, page_views(), turns)
    least = min(abs(alone[1] - alone[0]), abs(both[0] - both[1]))  # little, for a model of random weights
    assert least > 2e-6 and abs(both[1] - alone[0]) < least / 5
