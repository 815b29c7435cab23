"""Taggers and separators through avssl-convert: the published numbers, the way back, what is refused."""

import functools

import pytest
import torch
from oracle_rule import assert_near, oracle, rule_input, rule_weight

import avssl
from avssl.cli import convert as command
from avssl.errors import ModelError
from avssl.models.folder import load_network
from avssl.published import panns, resunet, uss
from avssl.published.convert import convert, revert
from avssl.published.layout import Choices


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sound")


def ruled(expected, constants, prefix=""):
    """The published state dict by the rule of the oracles; keys of the rule are without the wrapper's prefix."""
    state = {}
    for key, tensor in expected.items():
        like = torch.empty_like(tensor, device="cpu")
        state[key] = constants[key] if key in constants else rule_weight(key.removeprefix(prefix), like)
    return state


@functools.lru_cache(maxsize=1)
def _tagger_state():
    config = panns.tagger_config({}, "clip")
    return ruled(panns.expected(config), panns.constants(config))


def tagger_state():
    return dict(_tagger_state())  # 82 million numbers: made once


def separator_state(dim):
    return ruled(resunet.expected(dim), resunet.constants(2048), resunet.PREFIX)


class TestPanns:
    def test_both_kinds_give_the_published_numbers(self, folder):
        state, published = tagger_state(), oracle("panns")
        assert len(state) == published["keys"] == 84
        assert sum(tensor.numel() for tensor in state.values()) == 81_853_340
        source = folder / "Cnn14.pth"
        torch.save({"iteration": 7, "model": state}, source)
        with pytest.raises(ModelError, match=r"fits the layouts panns_clips and panns_frames.*--kind"):
            convert(source, folder / "either", Choices())

        convert(source, folder / "clips", Choices(), kind="panns_clips")
        net, description = load_network(folder / "clips", "tagger")
        assert description["model"]["classes"] == "audioset" and description["source"]["layout"] == "panns_clips"
        with torch.inference_mode():
            tags = net.eval()(rule_input("input.waveform", (1, 64000), 0.1))
        assert_near(tags.probabilities, published["clipwise"])
        assert_near(tags.embedding, published["embedding"])
        del net, tags

        revert(folder / "clips", folder / "back.pth", "panns_clips")
        back = torch.load(folder / "back.pth", weights_only=True)["model"]
        assert list(back) == list(panns.expected(panns.tagger_config({}, "clip")))
        assert all(torch.equal(back[key], tensor) for key, tensor in state.items())

    def test_frames(self, folder):
        convert(folder / "Cnn14.pth", folder / "frames", Choices(), kind="panns_frames")
        net = avssl.load(folder / "frames").model
        with torch.inference_mode():
            tags = net(rule_input("input.waveform10", (1, 320000), 0.1))
        assert_near(tags.probabilities, oracle("panns")["sed_clipwise"])
        assert_near(tags.frame_probabilities[:, ::32], oracle("panns")["sed_framewise_every_32"])
        with pytest.raises(ModelError, match="decides by frame, the layout panns_clips by clip"):
            revert(folder / "frames", folder / "wrong.pth", "panns_clips")

    def test_another_filter_bank_is_refused(self, folder):
        state = tagger_state()
        state["logmel_extractor.melW"] = state["logmel_extractor.melW"].roll(1, 0)
        torch.save({"model": state}, folder / "other.pth")
        with pytest.raises(ModelError, match=r"logmel_extractor.melW is not what its layout derives"):
            convert(folder / "other.pth", folder / "other", Choices(), kind="panns_clips")

    def test_the_front_end_of_the_16_khz_variant_is_read_from_its_window(self):
        real = torch.empty(257, 1, 512)
        config = panns.tagger_config({"spectrogram_extractor.stft.conv_real.weight": real}, "clip")
        assert (config.rate_hz, config.fft, config.hop, config.high_hz) == (16000, 512, 160, 8000.0)


class TestUss:
    def test_a_lightning_checkpoint_gives_the_published_waveform(self, folder, capsys):
        tagger, separator = tagger_state(), separator_state(527)
        assert len(separator) == 332 and sum(t.numel() for t in separator.values()) == 39_206_638
        state = separator | {uss._BASE + key: tensor for key, tensor in tagger.items()}
        state |= {"anchor_segment_detector.anchor_segment_scorer.smooth_filter": torch.ones(1, 1, 201)}
        source = folder / "uss.ckpt"
        torch.save({"epoch": 3, "global_step": 10, "state_dict": state, "loops": {}}, source)
        with pytest.raises(SystemExit) as exit:
            command.main([str(source), str(folder / "uss")])
        assert exit.value.code == 0 and "left out: loops" in capsys.readouterr().out.replace("global_step, ", "")

        net, description = load_network(folder / "uss", "separator")
        assert description["source"]["layout"] == "uss"
        assert "the tagger that mined anchors" in description["left_out"]
        net.eval()
        mixture = rule_input("input.mixture", (1, 1, 64000), 0.1)[:, 0]
        with torch.inference_mode():
            waveform = net(mixture, rule_input("input.condition", (1, 527)).sigmoid())
        assert (waveform - torch.from_numpy(oracle("uss")["waveform"])[:, 0]).abs().max() <= 2e-6
        del net

        revert(folder / "uss", folder / "back.ckpt", "uss")
        back = torch.load(folder / "back.ckpt", weights_only=True)["state_dict"]
        assert set(back) == {key for key in state if not key.startswith("anchor_")}
        unread = [key for key in back if ".bn2." in key and "decoder" in key and "conv_block2" not in key]
        unread += [key for key in back if ">beta2" in key and "decoder" in key and "conv_block2" not in key]
        assert len(unread) == 6 * (5 + 2)
        changed = [key for key, tensor in back.items() if not torch.equal(tensor, state[key])]
        assert set(changed) <= set(unread)

    def test_what_the_query_is_comes_from_the_shapes(self):
        def dims(dim, *more):
            weight = {"ss_model.film.encoder_block1->conv_block1->beta1.weight": torch.empty(32, dim)}
            config = uss.model_config(weight | dict(more))
            return config.query.kind, config.query.features, config.separator.condition_dim

        assert dims(527) == ("soft", 527, 527)
        assert dims(2048) == ("embedding", 2048, 2048)
        assert dims(2048, ("query_net.fc1.weight", torch.empty(2048, 2048))) == ("adaptive", 2048, 2048)


class TestAudioSep:
    def test_round_trip(self, folder):
        state = separator_state(512)
        source = folder / "audiosep.ckpt"
        torch.save({"state_dict": state | {"query_encoder.model.text.weight": torch.ones(2)}}, source)
        report = convert(source, folder / "audiosep", Choices())
        assert report.layout == "audiosep" and "the text encoder (CLAP)" in report.left_out
        net, _ = load_network(folder / "audiosep", "separator")
        assert net.config.source == "vector" and net.tagger is None and net.config.window_s == 5.0
        revert(folder / "audiosep", folder / "audiosep_back.ckpt", "audiosep")
        back = torch.load(folder / "audiosep_back.ckpt", weights_only=True)["state_dict"]
        assert back.keys() == state.keys()
        differ = {key for key in state if not torch.equal(back[key], state[key])}
        assert all("decoder" in key and ("->beta2" in key or ".bn2." in key) for key in differ)
        assert not any("conv_block2" in key for key in differ)

    def test_a_missing_tensor_is_named(self, folder):
        state = separator_state(512)
        del state["ss_model.base.pre_conv.bias"]
        torch.save(state, folder / "less.pth")
        with pytest.raises(ModelError, match=r"differs least from audiosep.*1 missing \(ss_model.base.pre_conv.bias"):
            convert(folder / "less.pth", folder / "less", Choices())
