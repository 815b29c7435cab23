"""Read files of tensors without unpickling objects, and load them strictly, with errors that say what does not fit."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from avssl.errors import ModelError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a PyTorch file that holds a state dict (bare, or under `model` or
    `state_dict`) and nothing but tensors and plain containers.

    Raises ModelError if the file is missing, damaged, or would need unpickling.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = read_pytorch(path)
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not is_state_dict(content):
        raise ModelError(f"{path}: holds no state dict (a mapping of names to tensors); save model.state_dict() alone")
    return dict(content)


def is_state_dict(content: Any) -> TypeGuard[Mapping[str, Tensor]]:
    """Whether this is a mapping of names to tensors with plain numbers (an empty one is)."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str)
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized)
        for key, tensor in content.items()
    )


def read_pytorch(path: Path) -> Any:
    """What `torch.save` wrote into a file: tensors, numbers and texts in plain containers, on the CPU.

    Raises ModelError if the file is missing, damaged, or would need unpickling.
    """
    _require(path)
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text proposes to load it all the same
        raise ModelError(
            f"{path}: cannot be read as a file of tensors (it is damaged, or holds objects that only running code "
            "could restore); save the state dict alone, or as .safetensors"
        ) from error
    except Exception as error:  # from damaged bytes torch's reader raises almost anything
        raise ModelError(
            f"{path}: cannot be read as a file of tensors ({_first_sentence(error)}); "
            "save the state dict alone, or as .safetensors"
        ) from error


def _require(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of a .safetensors or PyTorch state-dict file")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _require(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged or no safetensors file ({_first_sentence(error)}); copy it again") from error


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Load `state` into `module`: every key present, none left over, all shapes equal.

    Raises ModelError naming the file `where` and the first keys that do not fit.
    """
    difference = Difference.between(state, module.state_dict())
    if difference:
        raise ModelError(
            f"{where}: does not fit the model: {difference}; use the configuration that these weights were made with"
        )
    module.load_state_dict(state)


@dataclass(frozen=True)
class Difference:
    """In what a state dict is not the expected one. False if in nothing; as text, the first of each kind and counts."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]  # with what they are and should be

    @classmethod
    def between(cls, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, types: bool = False) -> Difference:
        """Compare names and shapes, and with `types` also the types of the numbers."""

        def form(tensor: Tensor) -> str:
            return f"{str(tensor.dtype).removeprefix('torch.')} " * types + str(list(tensor.shape))

        return cls(
            [key for key in expected if key not in found],
            [key for key in found if key not in expected],
            [
                f"{key} is {form(found[key])} instead of {form(tensor)}"
                for key, tensor in expected.items()
                if key in found and form(found[key]) != form(tensor)
            ],
        )

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape or type": self.misshapen}
        return ", ".join(
            f"{len(keys)} {kind} ({', '.join(map(printable, keys[:3]))}{', …' if len(keys) > 3 else ''})"
            for kind, keys in kinds.items()
            if keys
        )


def printable(name: str) -> str:
    """A name out of somebody's file, safe to print in a sentence."""
    return name if name.isprintable() else ascii(name)


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
