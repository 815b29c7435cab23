"""The towers of a two-tower model as ONNX or `torch.export` files, and what must be done to a clip before.

OUT/video.onnx, OUT/audio.onnx    (or .pt2)
OUT/export.json                   inputs, outputs, preprocessing in words and numbers, licence, source
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avssl import __version__
from avssl.errors import ModelError, UsageError
from avssl.files import sync_directory, write_json
from avssl.interchange.encoders import AudioEncoder, VideoEncoder
from avssl.models.config import AudioInput, VideoInput
from avssl.models.folder import load_network
from avssl.models.two_tower import TwoTower

Form = Literal["onnx", "export"]
SUFFIX: dict[Form, str] = {"onnx": "onnx", "export": "pt2"}
FACTS = "export.json"
OPSET = 20
CURE = "pip install 'avssl[onnx]'"


def export(source: str, out: Path, form: Form) -> dict[str, Any]:
    """Write the folder `out`, whole or not at all; returns what export.json holds.

    source: a model that `avssl.load` takes, of the kind two_tower. The number of clips in a batch is free; frames, size
    and samples are the model's own. Raises UsageError if `out` is there already or a package is missing, ModelError
    for a model that is of another kind or that cannot be traced.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already; name a new folder")
    if form == "onnx":
        _need_onnx()
    network, description = load_network(source, "two_tower")
    network.eval()
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        facts: dict[str, Any] = {
            "format": "avssl-export",
            "version": 1,
            "created_with": __version__,
            "form": form,
            "source": source,
            "licence": description.get("licence"),
        }
        for kind in ("video", "audio"):
            if getattr(network.config, kind) is None:
                continue
            file = temporary / f"{kind}.{SUFFIX[form]}"
            encoder, example, told = _encoder(network, kind)
            try:
                _write(encoder, example, told["input"]["name"], file, form)
            except Exception as error:  # the exporters raise anything
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ModelError(f"{source}: its {kind} tower cannot be exported as {form}: {reason}") from error
            facts[kind] = {"file": file.name, **told}
        write_json(temporary / FACTS, facts)
        temporary.replace(out)
        sync_directory(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def _encoder(network: TwoTower, kind: str) -> tuple[nn.Module, Tensor, dict[str, Any]]:
    """The module, an example of its input, and what a user has to know."""
    if kind == "video":
        video: VideoInput = network.config.video_input  # type: ignore[assignment]
        side = video.size_px
        shape: list[Any] = ["batch", video.frames, side, side, 3]
        encoder: nn.Module = VideoEncoder(network, video)
        example = torch.zeros(2, *shape[1:], dtype=torch.uint8)
        told = {
            "input": {"name": "frames", "type": "uint8", "shape": shape, "fps": video.fps},
            "prepare": [
                f"take {video.frames} consecutive frames at {video.fps:g} frames a second, RGB, values 0 to 255",
                f"resize the short side to {video.resize_px} pixels (bilinear, antialiased) and round",
                f"cut {side} x {side} pixels from the centre",
            ],
        }
    else:
        audio: AudioInput = network.config.audio_input  # type: ignore[assignment]
        shape = ["batch", audio.channels, audio.samples]
        encoder, example = AudioEncoder(network), torch.zeros(2, *shape[1:])
        told = {
            "input": {"name": "waveform", "type": "float32", "shape": shape, "rate_hz": audio.rate_hz},
            "prepare": [
                f"resample to {audio.rate_hz} Hz, {audio.channels} channel(s), values -1 to 1",
                f"cut {audio.samples} samples around the centre, or pad with zeros on both sides",
            ],
        }
    with torch.inference_mode():
        dim = encoder(example).shape[-1]
    return encoder.eval(), example, told | {"output": {"name": "embedding", "type": "float32", "shape": ["batch", dim]}}


def _write(encoder: nn.Module, example: Tensor, name: str, file: Path, form: Form) -> None:
    batch = ({0: torch.export.Dim("batch")},)
    with torch.no_grad(), _quiet():
        if form == "export":
            torch.export.save(torch.export.export(encoder, (example,), dynamic_shapes=batch), str(file))
            return
        program = torch.onnx.export(
            encoder, (example,), dynamo=True, dynamic_shapes=batch, input_names=[name], output_names=["embedding"],
            opset_version=OPSET, verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(str(file), external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk about themselves, not about the model."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--to onnx needs the package {error.name}; run {CURE}") from None
