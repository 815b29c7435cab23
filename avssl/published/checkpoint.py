"""A published file as its layout wants to see it: tensors by section, without the wrapper's prefix."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from avssl.errors import ModelError
from avssl.models.weights import is_state_dict, printable, read_pytorch, read_weights

WRAPPER = "module."  # what DataParallel and DistributedDataParallel put before every name

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The state dicts of a training checkpoint, or a state dict alone (then `criterion` is empty)."""

    path: Path
    sha256: str
    model: State
    criterion: State = field(default_factory=dict)
    epoch: int | None = None
    others: list[str] = field(default_factory=list)  # further entries of the file, such as "optimizer"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth`, `.pth.tar` or `.safetensors` file.

    Raises ModelError if it is missing, damaged, would need unpickling, holds no state dict or numbers that are not
    finite.
    """
    content = read_weights(path) if path.suffix == ".safetensors" else read_pytorch(path)
    if is_state_dict(content) and content:
        checkpoint = Checkpoint(path, sha256_of(path), _unwrap(content))
    else:
        sections = dict(content) if isinstance(content, Mapping) else {}
        model = next((sections.pop(key) for key in ("model", "state_dict") if key in sections), None)
        if not is_state_dict(model) or not model:
            raise ModelError(f"{path}: holds no state dict, neither itself nor under `model`; give a checkpoint's file")
        criterion = sections.pop("train_criterion", None)
        if not is_state_dict(criterion):
            criterion = {}
        epoch = sections.pop("epoch", None)
        checkpoint = Checkpoint(
            path, sha256_of(path), _unwrap(model), dict(criterion), epoch if type(epoch) is int else None,
            sorted(printable(str(key)) for key in sections),
        )  # fmt: skip
    _refuse_not_finite(checkpoint)
    return checkpoint


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwrap(state: Mapping[str, Tensor]) -> State:
    """Names without `module.`, which stands before all of them or none, once for every wrapper."""
    while all(key.startswith(WRAPPER) for key in state):
        state = {key.removeprefix(WRAPPER): tensor for key, tensor in state.items()}
    return dict(state)


def _refuse_not_finite(checkpoint: Checkpoint) -> None:
    bad = {
        key: int((~tensor.isfinite()).sum())
        for key, tensor in {**checkpoint.model, **checkpoint.criterion}.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    }
    if bad:
        first = next(iter(bad))
        raise ModelError(
            f"{checkpoint.path}: tensors with numbers that are not finite: {len(bad)}, the first {printable(first)} "
            f"({bad[first]} of them); copy the file again, or take an earlier checkpoint of that training"
        )
