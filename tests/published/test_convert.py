"""Converting: strict, reversible bit by bit; hostile and damaged files refused in a sentence, others' folders left."""

import hashlib
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from published_states import (
    avc_criterion_shapes,
    avid_criterion,
    avid_shapes,
    avsa_criterion_shapes,
    avsa_shapes,
    checkpoint,
    filled_at_random,
)
from safetensors.torch import save_file

import avssl
from avssl.errors import AvsslError, ModelError, UsageError
from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower
from avssl.published.checkpoint import Checkpoint, read_checkpoint
from avssl.published.convert import convert, revert
from avssl.published.layout import Choices
from avssl.published.registry import get_layout, recognise


@pytest.fixture(scope="module")
def avid():
    return filled_at_random(avid_shapes())


@pytest.fixture(scope="module")
def avsa():
    return filled_at_random(avsa_shapes(), seed=1)


@pytest.fixture(scope="module")
def avid_folder(avid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("avid")
    torch.save(checkpoint(avid, avid_criterion(cma=True)), folder / "cma.pth.tar")
    convert(folder / "cma.pth.tar", folder / "model", Choices())
    return folder / "model"


@pytest.fixture(scope="module")
def avsa_folder(avsa, tmp_path_factory):
    folder = tmp_path_factory.mktemp("avsa")
    torch.save(checkpoint(avsa, filled_at_random(avsa_criterion_shapes())), folder / "avsa.pth.tar")
    convert(folder / "avsa.pth.tar", folder / "model", Choices())
    return folder / "model"


def write(folder, content, **options):
    torch.save(content, folder / "published.pth.tar", **options)
    return folder / "published.pth.tar"


def same(one, other):
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


class TestRoundTrip:
    def test_avid(self, avid, avid_folder, tmp_path):
        revert(avid_folder, tmp_path / "back.pth.tar", "avid")
        back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
        assert same(back["model"], {f"module.{key}": tensor for key, tensor in avid.items()})
        assert back["epoch"] == 100 and "train_criterion" not in back

    def test_avsa_with_its_criterion(self, avsa, avsa_folder, tmp_path):
        criterion = filled_at_random(avsa_criterion_shapes())
        revert(avsa_folder, tmp_path / "back.pth.tar", "avsa")
        back = torch.load(tmp_path / "back.pth.tar", weights_only=True)
        assert same(back["model"], {f"module.{key}": tensor for key, tensor in avsa.items()})
        assert same(back["train_criterion"], criterion)
        again = convert(tmp_path / "back.pth.tar", tmp_path / "again", Choices())
        assert again.layout == "avsa"
        name = "model.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (avsa_folder / name).read_bytes()

    def test_a_model_of_our_own(self, tmp_path):
        config = ModelConfig(
            video=TowerConfig("avid_r2plus1d_10"), audio=TowerConfig("avid_audio_cnn9"), head=HeadConfig()
        )
        torch.manual_seed(0)
        model = TwoTower(config)
        save_model(tmp_path / "ours", model, config, card="")
        revert(tmp_path / "ours", tmp_path / "published.pth", "avid")
        convert(tmp_path / "published.pth", tmp_path / "again", Choices())
        again = avssl.load(tmp_path / "again")
        assert again.config.video.name == "avid_r2plus1d_10"
        torch.testing.assert_close(again.model.state_dict(), model.state_dict(), rtol=0, atol=0)

    def test_a_model_of_another_architecture_is_refused(self, avsa_folder, tmp_path):
        with pytest.raises(ModelError, match="towers avsa_r2plus1d_18 and avsa_audio_cnn9 have no avid layout"):
            revert(avsa_folder, tmp_path / "x.pth", "avid")
        config = ModelConfig(
            video=TowerConfig("avsa_r2plus1d_18"), audio=TowerConfig("avsa_audio_cnn9"), head=HeadConfig()
        )
        save_model(tmp_path / "heads", TwoTower(config), config, card="")
        with pytest.raises(ModelError, match=r"heads: the model has no avsa layout: 12 unexpected \(\w*_proj"):
            revert(tmp_path / "heads", tmp_path / "x.pth", "avsa")
        assert not (tmp_path / "x.pth").exists()


class TestDescription:
    def test_avid_cma(self, avid_folder):
        config = json.loads((avid_folder / "config.json").read_text())
        assert config["source"] == {
            "layout": "avid", "file": "cma.pth.tar", "epoch": 100, "entries": 267, "parameters": 21_286_784,
            "method": "AVID-CMA", "bank_rows": 7,
        }  # fmt: skip
        assert re.fullmatch("[0-9a-f]{64}", config["source_sha256"])
        variant = config["variant"]
        assert (variant["stem_max_pool"], variant["audio_block1_stride"]) == (True, 2)
        assert variant["front_end"] == "avid_spectrogram"
        assert variant["statistics"] == {"file": None, "mean_db": -28.5, "std_db": 19.7}
        assert config["licence"].startswith("CC BY-NC 4.0") and config["left_out"] == ["optimizer", "memory banks"]
        card = (avid_folder / "README.md").read_text()
        assert "CC BY-NC 4.0" in card and config["source_sha256"] in card and "--stats FILE" in card

    def test_avsa(self, avsa_folder):
        config = json.loads((avsa_folder / "config.json").read_text())
        variant = config["variant"]
        assert (variant["stem_max_pool"], variant["audio_block1_stride"]) == (False, 1)
        assert variant["mode"] == "released" and variant["front_end"] == "log_mel"
        assert config["criterion"] == {"phase": "alignment", "entries": 72, "parameters": 12_872_192}
        alignment = config["model"]["alignment"]
        assert (alignment["depth"], alignment["heads"], alignment["final_relu"]) == (2, 1, True)
        assert set(alignment["switches"].values()) == {"released"}
        assert config["licence"].startswith("none stated") and config["model"]["head"] is None
        assert config["left_out"] == ["optimizer"]

    def test_the_recorded_switches_are_those_of_the_networks(self, avid_folder, avsa_folder):
        for folder in (avid_folder, avsa_folder):
            model = avssl.load(folder)
            variant = model.description["variant"]
            stem = model.model.video_tower.feature_stages(torch.zeros(1, 3, 2, 32, 32))["conv1"]
            assert stem.shape[-1] == (8 if variant["stem_max_pool"] else 16)
            stages = model.model.audio_tower.feature_stages(torch.zeros(1, model.audio_input.channels, 32, 32))
            assert stages["conv1"].shape[-1] == stages["block1"].shape[-1] * variant["audio_block1_stride"]

    def test_models_without_heads_give_the_towers_features(self, avsa_folder):
        model = avssl.load(avsa_folder)
        sound = torch.randn(2, 4, 24000, generator=torch.Generator().manual_seed(0)) * 0.1
        found = model.encode_audio(sound, 24000, layers=["pool", "embedding"])
        assert model.dim == found["embedding"].shape[-1] == 512
        torch.testing.assert_close(found["embedding"], torch.nn.functional.normalize(found["pool"], dim=-1))


class TestStatistics:
    def test_are_taken_from_the_users_file(self, avid, tmp_path):
        mean, std = np.linspace(-53.9, -0.1, 257), np.linspace(17.4, 21.4, 257)
        np.savez(tmp_path / "stats.npz", mean=mean, std=std)
        report = convert(write(tmp_path, avid), tmp_path / "m", Choices(stats_file=tmp_path / "stats.npz"))
        assert report.warnings == []
        model = avssl.load(tmp_path / "m")
        np.testing.assert_allclose(model.model.front_end.mean.numpy(), mean, rtol=1e-6)
        np.testing.assert_allclose(model.model.front_end.std.numpy(), std, rtol=1e-6)
        assert model.description["variant"]["statistics"]["file"] == "stats.npz"
        assert "Note" not in (tmp_path / "m" / "README.md").read_text()

    def test_that_do_not_fit_are_refused(self, avid, tmp_path):
        (tmp_path / "short.json").write_text(json.dumps({"mean": [0.0] * 128, "std": [1.0] * 128}))
        read = Checkpoint(Path("a.pth"), "", avid)
        for name, message in (("short.json", "257 of them; got 128"), ("gone.npz", "gone.npz: cannot be read")):
            with pytest.raises(UsageError, match=message):
                get_layout("avid").convert(read, Choices(stats_file=tmp_path / name))

    def test_are_missed_aloud(self, avid):
        (warning,) = get_layout("avid").convert(Checkpoint(Path("a.pth"), "", avid), Choices()).warnings
        assert "mean -28.5 dB, std 19.7 dB" in warning and "--stats FILE" in warning


class TestForms:
    """The same model, however it was saved."""

    @pytest.mark.parametrize("form", ["wrapped", "wrapped twice", "bare", "state_dict", "legacy", "safetensors"])
    def test_all_hold_the_same_model(self, form, avid, tmp_path):
        few = {key: avid[key] for key in list(avid)[::10]}
        source = tmp_path / "published.pth.tar"
        if form == "safetensors":
            source = tmp_path / "published.safetensors"
            save_file(few, source)
        else:
            content = {
                "wrapped": checkpoint(few),
                "wrapped twice": {f"module.module.{key}": tensor for key, tensor in few.items()},
                "bare": few,
                "state_dict": {"state_dict": few, "best": 0.5},
                "legacy": checkpoint(few, avid_criterion()),  # as torch before 1.6 wrote files
            }[form]
            write(tmp_path, content, _use_new_zipfile_serialization=form != "legacy")
        read = read_checkpoint(source)
        assert same(read.model, few)
        assert read.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
        assert same(read.criterion, avid_criterion() if form == "legacy" else {})
        assert read.others == {"state_dict": ["best"], "wrapped": ["optimizer"], "legacy": ["optimizer"]}.get(form, [])

    def test_first_phase_of_avsa(self, avsa, tmp_path):
        read = Checkpoint(Path("a.pth"), "", avsa, filled_at_random(avc_criterion_shapes()))
        conversion = get_layout("avsa").convert(read, Choices())
        assert conversion.facts["criterion"]["phase"] == "correspondence"
        assert conversion.model.aligner.config.depth is None
        save_model(tmp_path / "m", conversion.model, conversion.config, card="")
        revert(tmp_path / "m", tmp_path / "back.pth", "avsa")
        assert same(torch.load(tmp_path / "back.pth", weights_only=True)["train_criterion"], read.criterion)

    def test_an_aligner_that_the_layout_cannot_hold_is_refused(self, avsa, tmp_path):
        read = Checkpoint(Path("a.pth"), "", avsa, filled_at_random(avsa_criterion_shapes()))
        conversion = get_layout("avsa").convert(read, Choices())
        conversion.config.alignment.final_relu = False
        save_model(tmp_path / "m", conversion.model, conversion.config, card="")
        with pytest.raises(ModelError, match=r"model\.alignment\.final_relu is False"):
            revert(tmp_path / "m", tmp_path / "back.pth", "avsa")

    def test_banks_are_kept_where_wanted(self, avid, tmp_path):
        banks = avid_criterion(rows=11, cma=True, constant=(1,))
        source = write(tmp_path, checkpoint(avid, banks))
        report = convert(source, tmp_path / "m", Choices(), banks_file=tmp_path / "banks.npz")
        with np.load(tmp_path / "banks.npz", allow_pickle=False) as kept:
            assert sorted(kept) == ["audio", "avg_exp_score", "positive_set", "video"]
            np.testing.assert_array_equal(kept["video"], banks["nce_average.view1_mem"].numpy())
            np.testing.assert_array_equal(kept["audio"], banks["nce_average.view2_mem"].numpy())
            np.testing.assert_array_equal(kept["positive_set"], banks["nce_average.positive_set"].numpy())
        assert "memory banks" not in report.left_out
        with pytest.raises(UsageError, match=r"banks\.npz: exists"):
            convert(source, tmp_path / "m", Choices(), banks_file=tmp_path / "banks.npz")
        with pytest.raises(UsageError, match="no memory banks"):
            convert(write(tmp_path, avid), tmp_path / "m", Choices(), banks_file=tmp_path / "others.npz")


class TestRefused:
    def expect(self, folder, content, message):
        source = write(folder, content) if content is not None else folder / "published.pth.tar"
        with pytest.raises(ModelError, match=message) as error:
            convert(source, folder / "model", Choices())
        assert str(source) in str(error.value) and "\n" not in str(error.value)
        assert sorted(path.name for path in folder.iterdir()) == [source.name]  # nothing is left behind

    def differs(self, state, message, kind=None):
        with pytest.raises(ModelError, match=message):
            recognise(Checkpoint(Path("a.pth"), "", state), kind)

    def test_a_missing_and_an_extra_key(self, avid, tmp_path):
        state = {key: tensor for key, tensor in avid.items() if key != "audio_model.block2.bn1.running_mean"}
        state["video_model.fc.weight"] = torch.zeros(2, 2)
        message = r"1 missing \(audio_model\.block2\.bn1\.running_mean\), 1 unexpected \(video_model\.fc\.weight\); "
        self.expect(tmp_path, state, r"no known layout; it differs least from avid .*" + message)

    def test_a_wrong_shape_and_a_wrong_type(self, avsa):
        state = avsa | {
            "video_model.conv3x.0.res_conv.weight": torch.zeros(128, 64, 1, 1),
            "audio_model.conv1.0.weight": avsa["audio_model.conv1.0.weight"].half(),
        }
        self.differs(
            state,
            r"avsa .*2 of another shape or type \(video_model\.conv3x\.0\.res_conv\.weight is float32 \[128, 64, 1, 1\]"
            r" instead of float32 \[128, 64, 1, 1, 1\], .*float16 \[64, 4, 7, 7\] instead of float32",
        )

    def test_many_differences_are_counted(self):
        self.differs({"net.weight": torch.zeros(3)}, r"\d\d missing \(\S+, \S+, \S+, …\), 1 unexpected \(net\.weight\)")

    def test_the_channels_and_the_heads_tell_the_kind(self, avid, avsa):
        assert (recognise(Checkpoint(Path(), "", avid)).name, recognise(Checkpoint(Path(), "", avsa)).name) == (
            "avid",
            "avsa",
        )
        headless = {key: tensor for key, tensor in avid.items() if "_proj." not in key}
        self.differs(headless, r"avsa \(AVSA\): 1 of another .* \[64, 1, 7, 7\] instead of float32 \[64, 4")
        self.differs(avsa, r"not of the layout avid .*12 missing \(video_proj.*1 of another", kind="avid")

    def test_a_criterion_that_is_not_the_models(self, avid, avsa):
        def with_criterion(model, criterion, **choices):
            return get_layout("avid" if model is avid else "avsa").convert(
                Checkpoint(Path("a.pth"), "", model, criterion), Choices(**choices)
            )

        for model, others in ((avsa, avid_criterion()), (avid, filled_at_random(avc_criterion_shapes()))):
            with pytest.raises(ModelError, match=r"a\.pth: train_criterion is none of AV.*--ignore-criterion"):
                with_criterion(model, others)
        for key, shape in (("view2_mem", (3, 128)), ("view1_mem", ()), ("positive_set", (6, 32))):
            short = avid_criterion(cma=True) | {f"nce_average.{key}": torch.zeros(shape)}
            with pytest.raises(ModelError, match=r"none of AVID's: .* of another shape"):
                with_criterion(avid, short)
        assert with_criterion(avid, short, ignore_criterion=True).left_out == ["train_criterion"]
        for constant in ((), (1,)):
            assert set(with_criterion(avid, avid_criterion(constant=constant)).banks) == {
                "video",
                "audio",
                "avg_exp_score",
            }

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_numbers_that_are_not_finite(self, value, tmp_path):
        bad = torch.zeros(8, 8)
        bad.view(-1)[[5, 60]] = value
        self.expect(tmp_path, {"conv.weight": bad}, r"not finite: 1, the first conv\.weight \(2 of them\)")
        two = checkpoint({"a": bad}, {"b": bad})
        self.expect(tmp_path, two, r"not finite: 2, the first a \(2 of them\)")

    @pytest.mark.parametrize("legacy", [False, True])
    @pytest.mark.parametrize("part", [0, 0.001, 0.5, 0.999])
    def test_truncated(self, part, legacy, tmp_path):
        source = write(tmp_path, {"a": torch.zeros(3000)}, _use_new_zipfile_serialization=not legacy)
        source.write_bytes(source.read_bytes()[: int(part * source.stat().st_size)])
        self.expect(tmp_path, None, "cannot be read as a file of tensors")

    def test_what_runs_code_is_not_run(self, tmp_path):
        trap = tmp_path.parent / f"{tmp_path.name}-exploded"

        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(trap),))

        self.expect(tmp_path, {"model": {"a": torch.zeros(2)}, "epoch": Bomb()}, "only running code could restore")
        torch.save({"model": Bomb()}, tmp_path / "published.pth.tar", _use_new_zipfile_serialization=False)
        self.expect(tmp_path, None, "only running code could restore")
        (tmp_path / "published.pth.tar").write_bytes(pickle.dumps(Bomb()))
        self.expect(tmp_path, None, "cannot be read as a file of tensors")
        assert not trap.exists()

    def test_what_holds_no_state_dict(self, tmp_path):
        strange = (torch.zeros(3).to_sparse(), torch.zeros(3, device="meta"), 3)
        for content in (
            [torch.zeros(3)],
            {"epoch": 3},
            {},
            {"model": {3: torch.zeros(1)}},
            *({"a": one} for one in strange),
        ):
            self.expect(tmp_path, content, "holds no state dict")

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(ModelError, match="no such file"):
            convert(tmp_path / "gone.pth", tmp_path / "m", Choices())


class TestOutput:
    def test_a_conversion_is_replaced_by_a_conversion(self, avsa, avsa_folder, tmp_path):
        (tmp_path / "m").mkdir()
        for name in ("config.json", "README.md"):
            (tmp_path / "m" / name).write_bytes((avsa_folder / name).read_bytes())
        save_file({"left": torch.zeros(1)}, tmp_path / "m" / "of_an_earlier_version.safetensors")
        convert(write(tmp_path, avsa), tmp_path / "m", Choices())
        assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
            "README.md", "config.json", "model.safetensors",
        ]  # fmt: skip
        assert avssl.load(tmp_path / "m").model.aligner is None  # the new source has no criterion
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "published.pth.tar"]

    def test_what_others_made_is_left(self, avid_folder, tmp_path):
        config = ModelConfig(audio=TowerConfig("tiny_audio"), head=HeadConfig([], 8))
        save_model(tmp_path / "trained", TwoTower(config), config, card="")
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "me.jpg").write_bytes(b"")
        (tmp_path / "annotated").mkdir()
        (tmp_path / "annotated" / "config.json").write_bytes((avid_folder / "config.json").read_bytes())
        (tmp_path / "annotated" / "notes.txt").write_text("my own")
        (tmp_path / "file").write_text("")
        for name in ("trained", "photos", "annotated", "file"):
            with pytest.raises(UsageError, match=rf"{name}: is .*name another"):
                convert(tmp_path / "never read", tmp_path / name, Choices())

    def test_an_existing_file_is_left_by_the_way_back(self, avid_folder, tmp_path):
        (tmp_path / "mine.pth").write_bytes(b"mine")
        with pytest.raises(UsageError, match="exists"):
            revert(avid_folder, tmp_path / "mine.pth", "avid")
        assert (tmp_path / "mine.pth").read_bytes() == b"mine"

    def test_a_failure_while_writing_leaves_the_old_one(self, avid, avid_folder, tmp_path, monkeypatch):
        source = write(tmp_path, avid)
        (tmp_path / "m").mkdir()
        old = (avid_folder / "config.json").read_bytes()
        (tmp_path / "m" / "config.json").write_bytes(old)

        def full_disk(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("avssl.files.write_json", full_disk)  # the last of the folder's files
        with pytest.raises(AvsslError, match="m: cannot be written: No space left"):
            convert(source, tmp_path / "m", Choices())
        assert [(path.name, path.read_bytes()) for path in (tmp_path / "m").iterdir()] == [("config.json", old)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "published.pth.tar"]
