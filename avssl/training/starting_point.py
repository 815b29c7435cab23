"""`run.init`: start a new run from what an earlier run, or a converted checkpoint, has learned.

The model's weights are loaded strictly, by name; only an aligner that has more than the earlier one (AVC's two heads,
or none) starts anew as a whole, as in the published curriculum. The state beside the model (memory banks, Z, …)
belongs to rows of a manifest: it is taken from a checkpoint whose shards are the same, entry by entry as far as the new
task has it. The optimiser starts anew. What was taken and what was not is said.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from avssl.errors import ConfigError, ModelError
from avssl.models import folder
from avssl.models.weights import load_into, read_weights
from avssl.training import checkpoint
from avssl.training.run_folder import RunFolder

_MODEL = "model."
_ALIGNER = "aligner."


class StartingPoint(NamedTuple):
    """What a file holds: weights of a model, and from a checkpoint the rest of its task's state."""

    path: Path
    model: dict[str, Tensor]
    beside: dict[str, Any]
    manifest_sha256: str | None  # None: of no run


def find(source: str, say: Callable[[str], None]) -> Path:
    """The file that `run.init` means: of a run folder its last good checkpoint, of a model folder the weights."""
    path = Path(source)
    if path.is_file():
        return path
    if (path / folder.WEIGHTS).is_file():
        folder.read_description(path)  # refuses what is no model folder of ours
        return path / folder.WEIGHTS
    run = RunFolder(path)
    if run.config.is_file():
        found = checkpoint.Checkpoints(run.checkpoints, keep=1).latest(say)
        if found is None:
            raise ConfigError(f"run.init: {path} is a run folder without a checkpoint yet; let it reach its first one")
        return found
    raise ConfigError(
        f"run.init: {path} is no model folder ({folder.WEIGHTS}), run folder ({run.config.name}) or file; give the path"
        " of one, or null to start from random weights"
    )


def read(path: Path) -> StartingPoint:
    """What the file that `find` found holds. `ModelError` if it is damaged or something else."""
    if path.suffix == ".safetensors":
        return StartingPoint(path, read_weights(path), {}, None)
    problem = checkpoint.damage(path)
    if problem:
        raise ModelError(f"run.init: {path} is no checkpoint of avssl-train, or damaged ({problem}); copy it again")
    state = checkpoint.load(path)
    model = {key.removeprefix(_MODEL): value for key, value in state["task"].items() if key.startswith(_MODEL)}
    beside = {key: value for key, value in state["task"].items() if not key.startswith(_MODEL)}
    return StartingPoint(path, model, beside, state["loader"]["manifest_sha256"])


def take(point: StartingPoint, task: nn.Module, manifest_sha256: str, say: Callable[[str], None]) -> None:
    """Put it into a new task over the shards of this manifest; ModelError naming what does not fit the model."""
    here = f"run.init {point.path}"
    model = task.get_submodule("model")
    given, grown = _with_new_aligner(point.model, model)
    load_into(model, given, here)
    say(f"{here}: took the model ({len(given) - grown} tensors)" + (", its aligner starts anew" if grown else ""))
    own = {key: value for key, value in task.state_dict().items() if not key.startswith(_MODEL)}
    taken, left = {}, []
    for key, value in point.beside.items():
        if point.manifest_sha256 != manifest_sha256:
            left.append(f"{key} (of other shards)")
        elif key not in own:
            left.append(f"{key} (not in this task)")
        elif _shape(value) != _shape(own[key]):
            left.append(f"{key} (shape {_shape(value)}, here {_shape(own[key])})")
        else:
            taken[key] = value
    task.load_state_dict(taken, strict=False)
    new = [key for key in own if key not in taken]
    for did, keys in (("took", list(taken)), ("left", left), ("starts anew:", new)):
        if keys:
            say(f"{here}: {did} {', '.join(keys)}")


def _with_new_aligner(given: dict[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], int]:
    """The weights, with the model's own aligner in them if it has all that theirs has and more; how many it is then."""
    own = {key: value for key, value in model.state_dict().items() if key.startswith(_ALIGNER)}
    if not {key for key in given if key.startswith(_ALIGNER)} < own.keys():
        return given, 0
    return {key: value for key, value in given.items() if not key.startswith(_ALIGNER)} | own, len(own)


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
