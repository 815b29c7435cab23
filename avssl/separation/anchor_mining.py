"""Mine the anchors of labelled shards with a frame-wise tagger, once: the table is kept beside the shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avssl.data.anchors import AnchorTable, anchor_path
from avssl.data.config import DataConfig
from avssl.data.loader import Loader, labels_of, open_shards
from avssl.errors import ConfigError, ShardError
from avssl.models.folder import load_network
from avssl.models.sound_config import TaggerModelConfig
from avssl.separation.anchors import mine_anchors
from avssl.separation.ontology import class_numbers
from avssl.separation.yamnet import YamNet

_BATCH = 16
_YAMNET_HOP_S = 0.08  # a twelfth of what it hears at once


def mine(
    config: DataConfig,
    classes: Mapping[str, int],
    device: torch.device | str = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """The table of anchors that `config.anchors` asks for; made if it is not there yet.

    classes: class number by name. Each usable row is heard once, and a segment is found for each of its classes.
    Raises ConfigError for a tagger of another kind, rate or list of classes, ShardError where the table cannot be kept.
    """
    assert config.anchors and config.audio
    shards = open_shards(config)
    labels = labels_of(shards, config, classes)
    assert labels
    path = anchor_path(config, shards, labels)
    if path.is_file():
        return path
    tagger = (
        _yamnet(config, classes) if Path(config.anchors.tagger).suffix == ".onnx" else _tagger(config, classes, device)
    )
    segment_frames = round(config.audio.duration_s / tagger.hop_s / 2) * 2
    whole = dataclasses.replace(
        config,
        anchors=None,
        sample_by="row",
        draws_per_row=1,
        shuffle=False,
        replacement=False,
        augment=None,
        sampling="even",
        batch_size=_BATCH,
        audio=dataclasses.replace(config.audio, duration_s=config.anchors.clip_s),
    )
    starts_s: dict[tuple[int, int], float] = {}
    loader = Loader(whole, endless=False, classes=classes)
    say(f"mining anchors in {len(loader.rows)} rows with {config.anchors.tagger}")
    for batch in loader:
        for row, number, start_s in _found(batch, tagger, segment_frames, config.anchors.ties):
            starts_s[row, number] = start_s
    try:
        AnchorTable(starts_s).write(path)
    except OSError as error:
        raise ShardError(
            f"{path}: cannot be written ({error.strerror}); the anchors are kept beside the shards, so make that folder"
            " writable"
        ) from error
    say(f"{path}: {len(starts_s)} anchors")
    return path


class _FrameTagger(NamedTuple):
    """frames: waveforms [B, S] at data.audio.rate_hz -> probabilities [B, T, classes], one every hop_s from 0."""

    frames: Callable[[Tensor], Tensor]
    hop_s: float


@torch.inference_mode()
def _found(batch: dict[str, Any], tagger: _FrameTagger, segment_frames: int, ties: Any) -> list[tuple[int, int, float]]:
    """(row, class, start_s) of all classes of a batch's rows."""
    probabilities = tagger.frames(batch["audio"][:, 0, 0])
    items, numbers = batch["target"].nonzero(as_tuple=True)
    centres = mine_anchors(probabilities[items, :, numbers], segment_frames, ties=ties)
    begins_s = batch["time_s"][items, 0, 1].double() + (centres - segment_frames // 2) * tagger.hop_s
    return list(zip(batch["row"][items].tolist(), numbers.tolist(), begins_s.tolist(), strict=True))


def _yamnet(config: DataConfig, classes: Mapping[str, int]) -> _FrameTagger:
    """What YAMNet says of the model's classes, which it knows by AudioSet's names and ids."""
    assert config.anchors and config.audio
    rate_hz, where = config.audio.rate_hz, f"data.anchors.tagger {config.anchors.tagger}"
    yamnet = YamNet(config.anchors.tagger)
    theirs = {key: node.class_index for node in yamnet.ontology.classes for key in (node.name, node.id)}
    column = {number: theirs[name] for name, number in classes.items() if name in theirs}
    if unknown := [name for name, number in classes.items() if number not in column]:
        raise ConfigError(
            f"{where}: YAMNet does not know {unknown[0]!r} ({len(unknown)} names in all); use AudioSet's names or ids "
            "of other classes than those it lacks, or train a tagger (configs/tagger_frames.yaml)"
        )
    columns = [column[number] for number in range(max(column) + 1)]
    margin = round(yamnet.window_s / 2 * rate_hz)  # so that the middle of the first window is at 0

    def frames(waveforms: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(waveforms, (margin, margin))
        return yamnet.frame_probabilities(padded[:, None], rate_hz, _YAMNET_HOP_S)[..., columns]

    _require_room(config)
    return _FrameTagger(frames, _YAMNET_HOP_S)


def _tagger(config: DataConfig, classes: Mapping[str, int], device: torch.device | str) -> _FrameTagger:
    assert config.anchors and config.audio
    where = f"data.anchors.tagger {config.anchors.tagger}"
    network, description = load_network(config.anchors.tagger, "tagger")
    if network.config.decision != "frame":
        raise ConfigError(f"{where}: decides by clip, but anchors need to know when; name one of decision frame")
    if network.config.rate_hz != config.audio.rate_hz:
        raise ConfigError(
            f"{where}: hears {network.config.rate_hz} Hz, but data.audio.rate_hz is {config.audio.rate_hz}; set them"
            " equal"
        )
    if class_numbers(TaggerModelConfig.from_dict(description["model"]).classes) != dict(classes):
        raise ConfigError(f"{where}: its classes are not those of model.classes; give the tagger of the same classes")
    _require_room(config)
    network = network.to(device).eval()
    return _FrameTagger(
        lambda waveforms: network(waveforms.to(device)).frame_probabilities.cpu(),
        network.config.hop / network.config.rate_hz,
    )


def _require_room(config: DataConfig) -> None:
    assert config.anchors and config.audio
    if config.anchors.clip_s <= config.audio.duration_s:
        raise ConfigError(
            f"data.anchors.clip_s is {config.anchors.clip_s}, but a segment of data.audio.duration_s"
            f" {config.audio.duration_s} is looked for in it; make it longer"
        )
