"""Models without projection heads: their embeddings are the towers' own features."""

import pytest
import torch

import avssl
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower


def headless(**changes) -> ModelConfig:
    return ModelConfig(
        **{"video": TowerConfig("tiny_video"), "audio": TowerConfig("tiny_audio"), "head": None, **changes}
    )


def test_the_embedding_is_the_feature():
    torch.manual_seed(0)
    model = TwoTower(headless()).eval()
    video, audio = torch.randn(2, 3, 8, 64, 64), torch.randn(2, 1, 48000) * 0.1
    with torch.inference_mode():
        embeddings = model(video=video, audio=audio)
        assert torch.equal(embeddings["video"], model.video_features(video))
        assert torch.equal(embeddings["audio"], model.audio_features(audio))
    assert model.dim == embeddings["video"].shape[1] == 256
    assert not [key for key in model.state_dict() if "_head." in key]


def test_a_folder_of_one_loads_and_encodes(tmp_path):
    torch.manual_seed(0)
    model = TwoTower(headless())
    save_model(tmp_path / "m", model, headless(), card="")
    loaded = avssl.load(tmp_path / "m")
    assert loaded.config.head is None and loaded.dim == 256
    found = loaded.encode_video(torch.zeros(8, 64, 64, 3, dtype=torch.uint8), layers=["pool", "embedding"])
    torch.testing.assert_close(found["embedding"], torch.nn.functional.normalize(found["pool"], dim=-1))


def test_features_of_different_lengths_have_no_common_space():
    model = TwoTower(headless(audio=TowerConfig("avid_audio_cnn9")))
    with pytest.raises(ConfigError, match=r"model\.head is null, but .* \[256, 512\]"):
        _ = model.dim
    assert TwoTower(headless(video=None)).dim == 256
