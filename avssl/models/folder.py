"""The model folder: `model.safetensors` (weights), `config.json` (what they are), `README.md` (model card).

Nothing in it is pickled, so a folder from a stranger is data, not code. `load` turns one into an `AVModel`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avssl import __version__, files
from avssl.errors import ConfigError, ModelError
from avssl.models.av_model import AVModel
from avssl.models.config import ModelConfig
from avssl.models.two_tower import TwoTower
from avssl.models.weights import load_into, read_weights

FORMAT = "avssl-model"
VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HUB_PREFIX = "hf-hub:"
BUNDLED = Path(__file__).parent.parent / "assets"


def save_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    config: ModelConfig,
    *,
    card: str,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model folder; each file is replaced atomically.

    model: a TwoTower of `config`, bare (not wrapped for training). card: the README's Markdown. extra: further entries
    of config.json, such as `variant`, `licence`, `source_sha256`, `trained`.
    """
    from safetensors.torch import save

    reserved = {"format", "version", "model"} & set(extra or {})
    if reserved:
        raise ValueError(f"extra must not hold {sorted(reserved)}")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    folder = Path(path)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "created_with": __version__,
        "model": config.without_files().to_dict(),
        **(extra or {}),
    }
    content = save(state)
    files.write_atomic(folder / WEIGHTS, lambda file: file.write(content))
    files.write_atomic(folder / CARD, lambda file: file.write(card.encode()))
    files.write_json(folder / CONFIG, description)  # last: without it the folder is no model


def load(
    source: str | os.PathLike[str], device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None
) -> AVModel:
    """A trained model, ready to encode.

    source: a bundled model's name (`tiny`), `hf-hub:ORG/NAME` (needs the package huggingface_hub), or the path of a
    model folder; a folder with a bundled name is meant by `./tiny`. dtype: compute towers and heads in this type (e.g.
    `torch.bfloat16` or "bfloat16"); weights, front end and results stay float32.

    Raises ModelError naming the file and the key if something is missing, damaged or does not fit.
    """
    folder = _find(source)
    description = read_description(folder)
    try:
        config = ModelConfig.from_dict(description["model"])
        model = TwoTower(config.without_files())
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    load_into(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return AVModel(model, device=device, dtype=dtype or torch.float32, description=description)


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a model folder's config.json. Raises ModelError if it is absent or not one of ours."""
    path = folder / CONFIG
    try:
        description = files.read_json(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; a model folder holds {WEIGHTS}, {CONFIG} and {CARD}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); copy the folder again") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ModelError(f'{path}: key "format" is not "{FORMAT}"; give a folder that avssl wrote')
    if description.get("version") != VERSION:
        raise ModelError(f'{path}: key "version" is {description.get("version")!r}, this avssl reads 1; update avssl')
    if "model" not in description:
        raise ModelError(f'{path}: key "model" is missing; write the folder again with save_model')
    return description


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG}"))


def _find(source: str | os.PathLike[str]) -> Path:
    if isinstance(source, str):
        if source.startswith(HUB_PREFIX):
            return _fetch(source.removeprefix(HUB_PREFIX))
        if source in bundled_models():
            return BUNDLED / source
    folder = Path(source)
    if not folder.is_dir():
        known = ", ".join(bundled_models()) or "none"
        raise ModelError(
            f"{source}: no such model folder, nor a bundled model (bundled: {known}); "
            f"give a folder, a bundled name or {HUB_PREFIX}ORG/NAME"
        )
    return folder


def _fetch(repository: str) -> Path:
    """Download the three files of a Hugging Face repository, or find them in the local cache."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(
            f"{HUB_PREFIX}{repository}: needs the package huggingface_hub; run pip install 'avssl[hub]'"
        ) from None
    try:
        return Path(snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, CARD]))
    except Exception as error:  # offline, no such repository, bad name, no access: many types, over several libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{HUB_PREFIX}{repository}: cannot be fetched ({reason}); check name and network, or give a local folder"
        ) from error
