"""Read files of tensors without unpickling objects, and load them strictly, with errors that say what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from avssl.errors import ModelError


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a PyTorch file that holds a state dict (bare, or under `model` or
    `state_dict`) and nothing but tensors and plain containers.

    Raises ModelError if the file is missing, damaged, or would need unpickling.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of a .safetensors or PyTorch state-dict file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path}: cannot be read as a file of tensors ({_first_sentence(error)}); "
            "save the state dict alone, or as .safetensors"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise ModelError(f"{path}: holds no state dict (a mapping of names to tensors); save model.state_dict() alone")
    return dict(content)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged or no safetensors file ({_first_sentence(error)}); copy it again") from error


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Load `state` into `module`: every key present, none left over, all shapes equal.

    Raises ModelError naming the file `where`, the first keys that do not fit and how many more there are.
    """
    own = module.state_dict()
    shapes = {
        key: f"{key} has shape {tuple(state[key].shape)}, the model {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    }
    problems = [
        *(f"{key} is missing" for key in own if key not in state),
        *(f"{key} is not in the model" for key in state if key not in own),
        *(shapes[key] for key in own if key in shapes),
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(
            f"{where}: does not fit the model: {', '.join(problems[:3])}{more}; "
            "use the configuration that these weights were made with"
        )
    module.load_state_dict(state)


def _first_sentence(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
