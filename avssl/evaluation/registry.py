"""The protocols by name, as import paths: reading a config or printing `--help` does not import torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from avssl.config import nearest
from avssl.errors import ConfigError


class ProtocolEntry(NamedTuple):
    """Where a protocol lives, as `module:name`.

    config: its dataclass, without torch. run: `run(config: EvalConfig, out: Path, advance) -> Outcome`, which may write
    further files into `out` and calls `advance(1)` after each item.
    """

    config: str
    run: str


PROTOCOLS: dict[str, ProtocolEntry] = {
    "avc_bin": ProtocolEntry("avssl.evaluation.scene_config:SceneTaskConfig", "avssl.evaluation.scene_tasks:run"),
    "avsa_bin": ProtocolEntry("avssl.evaluation.scene_config:SceneTaskConfig", "avssl.evaluation.scene_tasks:run"),
    "avss": ProtocolEntry("avssl.evaluation.scene_config:AVSSConfig", "avssl.evaluation.avss:run"),
    "discovery": ProtocolEntry("avssl.evaluation.discovery_config:DiscoveryConfig", "avssl.evaluation.discovery:run"),
    "classify": ProtocolEntry("avssl.finetuning.protocol_config:Classify", "avssl.finetuning.classify:run"),
    "finetune": ProtocolEntry("avssl.finetuning.protocol_config:FinetuneProtocol", "avssl.finetuning.protocol:run"),
    "frozen": ProtocolEntry("avssl.evaluation.frozen_config:FrozenConfig", "avssl.evaluation.frozen:run"),
    "linear_stages": ProtocolEntry("avssl.finetuning.protocol_config:LinearStages", "avssl.finetuning.protocol:run"),
    "separation_denoise": ProtocolEntry(
        "avssl.evaluation.separation_config:DenoiseConfig", "avssl.evaluation.separation_denoise:run"
    ),
    "separation_pairs": ProtocolEntry(
        "avssl.evaluation.separation_config:PairsConfig", "avssl.evaluation.separation_pairs:run"
    ),
    "separation_stems": ProtocolEntry(
        "avssl.evaluation.separation_config:StemsConfig", "avssl.evaluation.separation_stems:run"
    ),
    "yaw": ProtocolEntry("avssl.evaluation.scene_config:SceneTaskConfig", "avssl.evaluation.scene_tasks:run"),
}


@dataclass
class Unnamed:
    """What `protocol:` is read into before its name is known."""

    name: str | None = None
    """Which protocol."""

    def __post_init__(self) -> None:
        raise ConfigError(f"protocol.name: missing; the protocols are: {', '.join(sorted(PROTOCOLS))}")


def protocol_config_class(name: str | None) -> type:
    """The dataclass that `protocol:` of a config is read into."""
    return Unnamed if name is None else _load(_entry(name).config)


def protocol_run(name: str) -> Any:
    """The function that carries the protocol out."""
    return _load(_entry(name).run)


def _entry(name: str) -> ProtocolEntry:
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol.name: {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
