"""Making configs in the tests of the loop."""

import copy
import json
from pathlib import Path
from typing import Any

import yaml

from avssl import config as configuration
from avssl.training.config import TrainConfig

TIMINGS = {"clips_per_s", "step_ms", "data_wait_percent", "peak_memory_mb"}


def changed(tree: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The tree with dotted keys set: `changed(tree, **{"run.steps": 3})`."""
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def make_config(tree: dict[str, Any], **changes: Any) -> TrainConfig:
    return configuration.build(TrainConfig, changed(tree, **changes))


def write_config(tree: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(tree))
    return path


def metrics_of(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{name: v for name, v in json.loads(line).items() if name not in TIMINGS} for line in lines]
