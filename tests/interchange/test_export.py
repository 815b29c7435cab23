"""Exported encoders give the model's own vectors on random clips, in batches of any size; and misuse is named."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_media import save_tiny_model

import avssl
from avssl.cli import convert
from avssl.interchange.export import _write
from avssl.models.av_model import AVModel, centre_crop, resize_short_side
from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.front_ends import FRONT_ENDS, create_front_end


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        convert.main([str(argument) for argument in arguments])
    return stopped.value.code


def clips(model: AVModel, count: int, seed: int = 0):
    """Random pictures of another size than the model's, and random sound."""
    random = np.random.default_rng(seed)
    video, audio = model.video_input, model.audio_input
    frames = random.integers(0, 256, (count, video.frames, video.resize_px + 9, video.resize_px + 30, 3), np.uint8)
    return torch.from_numpy(frames), 0.2 * torch.from_numpy(
        random.standard_normal((count, audio.channels, audio.samples))
    ).float()


def prepared(frames: torch.Tensor, facts: dict, resize_px: int) -> torch.Tensor:
    """What export.json says in words."""
    flat = frames.flatten(0, 1).movedim(-1, 1)
    size_px = facts["video"]["input"]["shape"][2]
    cut = centre_crop(resize_short_side(flat, resize_px), size_px)
    return cut.movedim(1, -1).unflatten(0, frames.shape[:2]).contiguous()


@pytest.mark.parametrize("form", ["onnx", "export"])
def test_parity_with_the_model(tmp_path, form):
    source = "tiny"
    assert run(source, tmp_path / "out", "--to", form) == 0
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    model = avssl.load(source)
    frames, sound = clips(model, 3)
    pixels = prepared(frames, facts, model.video_input.resize_px)
    expected = {"video": model.encode_video(frames), "audio": model.encode_audio(sound, model.audio_input.rate_hz)}
    for kind, clip in (("video", pixels), ("audio", sound)):
        told = facts[kind]
        assert (
            list(clip.shape[1:]) == told["input"]["shape"][1:] and str(clip.dtype) == f"torch.{told['input']['type']}"
        )
        path = str(tmp_path / "out" / told["file"])
        for count in (3, 1):
            if form == "onnx":
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                (found,) = session.run(["embedding"], {told["input"]["name"]: clip[:count].numpy()})
            else:
                found = torch.export.load(path).module()(clip[:count]).detach().numpy()
            np.testing.assert_allclose(found, expected[kind][:count].numpy(), atol=1e-4)
            assert list(found.shape[1:]) == told["output"]["shape"][1:]


@pytest.mark.parametrize("name", sorted(set(FRONT_ENDS) - {"log_mel"}))  # that one is the model's above
def test_the_other_front_ends(tmp_path, name):
    """Four channels at once, loud and silent: the floor of the decibels is each channel's own."""
    front_end = create_front_end(AudioInput(24000, 0.5, 4, FrontEndConfig(name))).eval()
    sound = 0.2 * torch.randn(3, 4, 12000, generator=torch.Generator().manual_seed(0))
    sound[1, 2] = 0
    _write(front_end, sound, "waveform", tmp_path / "f.onnx", "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "f.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(["embedding"], {"waveform": sound.numpy()})
    np.testing.assert_allclose(found, front_end(sound).numpy(), atol=1e-4)


def test_the_preprocessing_is_told_in_words(tmp_path):
    model = save_tiny_model(tmp_path / "m", modalities=("audio",))
    assert run(model, tmp_path / "out", "--to", "export") == 0
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audio.pt2", "export.json"]
    assert "video" not in facts and facts["audio"]["prepare"][0].startswith("resample to 24000 Hz, 1 channel(s)")


def test_misuse_is_one_sentence_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    model = save_tiny_model(tmp_path / "m")
    (tmp_path / "there").mkdir()
    for arguments, code, words in (
        ([model, tmp_path / "there", "--to", "onnx"], 2, "exists already; name a new folder"),
        (["absent", tmp_path / "o", "--to", "onnx"], 1, "absent: no such model folder"),
        ([model, tmp_path / "o", "--to", "onnx", "--kind", "avid"], 2, "--kind does not go with --to"),
    ):
        assert run(*arguments) == code
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    monkeypatch.setattr("avssl.interchange.export._write", lambda *_: (_ for _ in ()).throw(RuntimeError("no\nway")))
    assert run(model, tmp_path / "o", "--to", "export") == 1
    assert "its video tower cannot be exported as export: no" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "there"]
