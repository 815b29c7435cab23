"""Files of the published layouts, with weights by the oracles' rule, through the converter: the published numbers."""

import numpy as np
import pytest
import torch
from oracle_rule import assert_near, oracle, rule_input
from published_states import avid_shapes, avsa_criterion_shapes, avsa_shapes, checkpoint, filled_by_rule

import avssl
from avssl.models.aligner import OTHER
from avssl.objectives.avsa import alignment
from avssl.objectives.scores import unit
from avssl.published.convert import convert
from avssl.published.layout import Choices


def converted(folder, content):
    torch.save(content, folder / "published.pth.tar")
    convert(folder / "published.pth.tar", folder / "model", Choices())
    return avssl.load(folder / "model").model


@pytest.fixture(scope="module")
def avid(tmp_path_factory):
    state = filled_by_rule(avid_shapes())
    np.testing.assert_array_equal(
        state["video_model.conv1.0.weight"].flatten()[:8].numpy(), oracle("avid")["first_weight"]
    )
    assert len(state) == oracle("avid")["keys"] == 267
    return converted(tmp_path_factory.mktemp("avid"), checkpoint(state))


@pytest.fixture(scope="module")
def avsa(tmp_path_factory):
    state, criterion = filled_by_rule(avsa_shapes()), filled_by_rule(avsa_criterion_shapes())
    assert len(state) == oracle("avsa")["keys"] == 255
    return converted(tmp_path_factory.mktemp("avsa"), checkpoint(state, criterion))


@torch.inference_mode()
def test_avid(avid):
    published = oracle("avid")
    video, picture = rule_input("input.video", (2, 3, 8, 112, 112)), rule_input("input.audio", (2, 1, 200, 257))
    video_feature, audio_feature = avid.video_features(video), avid.audio_tower(picture)
    assert_near(video_feature, published["video_feature"])
    assert_near(audio_feature, published["audio_feature"])
    assert_near(avid.video_head(video_feature), published["video_embedding"])
    assert_near(avid.audio_head(audio_feature), published["audio_embedding"])


@torch.inference_mode()
def test_avsa(avsa):
    published = oracle("avsa")
    embedding = avsa(video=rule_input("input.video", (2, 3, 8, 112, 112)))["video"]
    assert_near(embedding, published["video_feature"])
    assert_near(avsa.audio_tower(rule_input("input.audio", (2, 4, 100, 128))), published["audio_feature"])


@torch.inference_mode()
def test_the_criterion_of_avsa(avsa):
    published, aligner = oracle("avsa"), avsa.aligner
    assert len(aligner.state_dict()) == 72
    assert sum(parameter.numel() for parameter in aligner.parameters()) == 12_872_192
    features = {name: rule_input(f"input.{name}_views", (5, 4, 512)) for name in ("video", "audio")}
    predicted = {name: aligner.predict(name, features[OTHER[name]]) for name in ("video", "audio")}
    assert_near(predicted["audio"], published["audio_prediction"])
    assert_near(predicted["video"], published["video_prediction"])
    for negatives, name in (("easy+hard", "loss_easy_hard"), ("hard", "loss_hard")):
        losses = [
            alignment(
                unit(aligner.project_prediction(modality, predicted[modality])),
                unit(aligner.project(modality, features[modality])),
                torch.arange(5),
                temperature=0.07,
                candidates="released",
                negatives=negatives,
            ).loss.mean()
            for modality in ("video", "audio")
        ]
        assert float(torch.stack(losses).mean()) == pytest.approx(float(published[name]), rel=1e-4)


def test_the_front_ends_of_the_converted_models(avid, avsa):
    published = oracle("front_ends")
    ours = avid.front_end.decibels(rule_input("input.audio2s", (1, 48000), 0.1)[None])[0]
    np.testing.assert_allclose(ours.numpy(), published["avid_spectrogram_db"], rtol=0, atol=2e-3)
    ours = avsa.front_end.decibels(rule_input("input.ambix1s", (4, 24000), 0.1)[None])[0]
    np.testing.assert_allclose(ours.numpy(), published["avsa_logmel_db"], rtol=0, atol=2e-3)
