"""Mine the anchors of labelled shards with a frame-wise tagger, once: the table is kept beside the shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avssl.data.anchors import AnchorTable, anchor_path
from avssl.data.config import DataConfig
from avssl.data.loader import Loader, labels_of, open_local
from avssl.errors import ConfigError, ShardError
from avssl.models.folder import load_network
from avssl.models.sound_config import TaggerModelConfig
from avssl.separation.anchors import mine_anchors
from avssl.separation.ontology import class_numbers

_BATCH = 16


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
    shards = open_local(config.shards)
    labels = labels_of(shards, config, classes)
    assert labels
    path = anchor_path(config, shards, labels)
    if path.is_file():
        return path
    tagger = _tagger(config, classes).to(device).eval()
    hop_s = tagger.config.hop / config.audio.rate_hz
    segment_frames = round(config.audio.duration_s / hop_s / 2) * 2
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
        for row, number, start_s in _found(batch, tagger, segment_frames, config.anchors.ties, hop_s):
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


@torch.inference_mode()
def _found(
    batch: dict[str, Any], tagger: Any, segment_frames: int, ties: Any, hop_s: float
) -> list[tuple[int, int, float]]:
    """(row, class, start_s) of all classes of a batch's rows."""
    device = next(tagger.parameters()).device
    probabilities: Tensor = tagger(batch["audio"][:, 0, 0].to(device)).frame_probabilities.cpu()
    items, numbers = batch["target"].nonzero(as_tuple=True)
    centres = mine_anchors(probabilities[items, :, numbers], segment_frames, ties=ties)
    begins_s = batch["time_s"][items, 0, 1].double() + (centres - segment_frames // 2) * hop_s
    return list(zip(batch["row"][items].tolist(), numbers.tolist(), begins_s.tolist(), strict=True))


def _tagger(config: DataConfig, classes: Mapping[str, int]) -> Any:
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
    if config.anchors.clip_s <= config.audio.duration_s:
        raise ConfigError(
            f"data.anchors.clip_s is {config.anchors.clip_s}, but a segment of data.audio.duration_s"
            f" {config.audio.duration_s} is looked for in it; make it longer"
        )
    return network
