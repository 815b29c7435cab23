"""The model folder: what was saved comes back; what is damaged, hostile or absent is refused in one sentence."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

import avssl
from avssl.errors import ModelError
from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
from avssl.models.folder import bundled_models, load, save_model
from avssl.models.two_tower import TwoTower

VIDEO = torch.randint(0, 256, (2, 8, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SOUND = torch.randn(2, 1, 48000, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.fixture(scope="module")
def model() -> TwoTower:
    torch.manual_seed(0)
    config = ModelConfig(
        video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio"), head=HeadConfig(hidden=[32], dim=16)
    )
    model = TwoTower(config)
    model(video=torch.randn(4, 3, 8, 64, 64), audio=SOUND.repeat(2, 1, 1))  # sets running statistics
    return model.eval()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    save_model(tmp_path / "m", model, model.config, card="# A card\n", extra={"licence": "CC0-1.0"})
    return tmp_path / "m"


def edit(folder: Path, change) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_what_is_saved_comes_back(model, folder):
    loaded = load(folder)
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert loaded.config == model.config
    assert loaded.description["licence"] == "CC0-1.0"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "README.md").read_text() == "# A card\n"
    pixels = torch.stack([VIDEO.movedim(-1, 1).float() / 255]).squeeze(0)
    mean, std = (
        torch.tensor(value)[:, None, None, None] for value in (loaded.video_input.mean, loaded.video_input.std)
    )
    assert loaded.video_input.size_px == 64
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model(video=(pixels - mean) / std)["video"], dim=-1)
    loaded.config.video_input.resize_px = 64  # so that nothing is left to resize
    torch.testing.assert_close(loaded.encode_video(VIDEO), expected, rtol=1e-5, atol=1e-6)


def test_saving_again_replaces_and_gives_the_same_bytes(model, folder, tmp_path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save_model(folder, model, model.config, card="# A card\n", extra={"licence": "CC0-1.0"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_does_not_need_the_files_training_started_from(model, tmp_path):
    start = tmp_path / "start.pth"
    torch.save(model.video_tower.state_dict(), start)
    (tmp_path / "stats.json").write_text(json.dumps({"mean": -40.0, "std": 12.0}))
    config = ModelConfig.from_dict(model.config.to_dict())
    config.video.weights, config.audio_input.front_end.stats_file = str(start), str(tmp_path / "stats.json")
    trained = TwoTower(config)
    assert trained.front_end.mean[0] == -40
    save_model(tmp_path / "m", trained, config, card="")
    start.unlink(), (tmp_path / "stats.json").unlink()
    torch.testing.assert_close(load(tmp_path / "m").model.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_avssl_load_is_this_load(folder):
    assert avssl.load is load
    assert avssl.load(str(folder)).dim == 16


class TestRefused:
    def expect(self, source, message):
        with pytest.raises(ModelError, match=message) as error:
            load(source)
        assert "\n" not in str(error.value)

    def test_no_such_folder(self, tmp_path):
        self.expect(tmp_path / "gone", "gone: no such model folder, nor a bundled model")
        self.expect("no-such-model", "no-such-model: no such model folder")

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_missing_file(self, folder, name):
        (folder / name).unlink()
        self.expect(folder, re.escape(str(folder / name)) + ": no such file")

    def test_a_config_that_is_not_json(self, folder):
        for content in (b"{", b"\xff\xfe\x00", b"[1, 2]", b'"text"'):
            (folder / "config.json").write_bytes(content)
            self.expect(folder, r"config\.json: (not valid JSON|key \"format\")")

    def test_another_version(self, folder):
        edit(folder, lambda config: config.update(version=2))
        self.expect(folder, r'"version" is 2.*update avssl')

    def test_an_unknown_key(self, folder):
        edit(folder, lambda config: config["model"]["video_input"].update(frame=8))
        self.expect(folder, r"config\.json: model\.video_input\.frame: unknown key; did you mean .*frames")

    def test_an_unknown_tower(self, folder):
        edit(folder, lambda config: config["model"]["video"].update(name="tiny_vide"))
        self.expect(folder, r"config\.json: .*did you mean 'tiny_video'")

    def test_a_config_that_does_not_fit_the_weights(self, folder):
        edit(folder, lambda config: config["model"]["head"].update(dim=24))
        self.expect(folder, r"model\.safetensors: does not fit .*video_head\.projection\.2\.weight is \[16, 32\]")

    def test_truncated_weights(self, folder):
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        self.expect(folder, r"model\.safetensors: damaged")

    def test_a_pickle_in_place_of_the_weights(self, folder):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(folder / "exploded"),))

        torch.save({"model": Bomb()}, folder / "model.safetensors")
        self.expect(folder, "damaged or no safetensors file")
        assert not (folder / "exploded").exists()

    def test_a_config_that_names_a_file_to_read(self, folder, tmp_path):
        """A stranger's folder must not make us open other files."""
        edit(folder, lambda config: config["model"]["video"].update(weights=str(tmp_path / "secret.pth")))
        assert load(folder).dim == 16

    def test_the_hub_without_its_package_or_network(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        self.expect("hf-hub:nobody/nothing", "nobody/nothing: (needs the package huggingface_hub|cannot be fetched)")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_encode(name):
    bundled = load(name)
    frames = torch.zeros(bundled.video_input.frames, 72, 96, 3, dtype=torch.uint8)
    assert bundled.encode_video(frames).norm() == pytest.approx(1, abs=1e-4)
    sound = torch.zeros(bundled.audio_input.channels, bundled.audio_input.samples)
    assert bundled.encode_audio(sound, bundled.audio_input.rate_hz).norm() == pytest.approx(1, abs=1e-4)
