"""The model folder: `model.safetensors` (weights), `config.json` (what they are), `README.md` (model card).

Nothing in it is pickled, so a folder from a stranger is data, not code. `load` turns one into an object that does what
the folder is for: an `AVModel` encodes, a `Classifier` also names classes, a `Tagger` names sounds, a `Separator`
separates them.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from avssl import __version__, files
from avssl.config import nearest
from avssl.errors import ConfigError, ModelError
from avssl.models import hub, starter
from avssl.models.classifier_config import ClassifierConfig
from avssl.models.config import ModelConfig
from avssl.models.hub import HUB_PREFIX
from avssl.models.sound_config import SeparatorModelConfig, TaggerModelConfig
from avssl.models.weights import load_into, read_weights

FORMAT = "avssl-model"
VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
BUNDLED = Path(__file__).parent.parent / "assets"

Config = ModelConfig | ClassifierConfig | TaggerModelConfig | SeparatorModelConfig


class Kind(NamedTuple):
    """What a folder may hold, as import paths `module:name`: the class or function that makes the network of a
    configuration, and the class that uses it. Names, for the users of the networks of sound lie above the networks."""

    config: Any
    network: str
    user: str
    also: str | None = None
    """The kind whose user this one's is, too."""


KINDS = {
    "classifier": Kind(
        ClassifierConfig,
        "avssl.models.classifier:ClassifierNet",
        "avssl.finetuning.classifier:Classifier",
        also="two_tower",
    ),
    "two_tower": Kind(ModelConfig, "avssl.models.two_tower:TwoTower", "avssl.models.av_model:AVModel"),
    "tagger": Kind(TaggerModelConfig, "avssl.models.cnn14:tagger_of", "avssl.separation.tagger:Tagger"),
    "separator": Kind(
        SeparatorModelConfig, "avssl.models.separator_model:SeparatorModel", "avssl.separation.separator:Separator"
    ),
}


def save_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    config: Config,
    *,
    card: str,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write a model folder; each file is replaced atomically.

    model: the network of `config` (a TwoTower, a Cnn14 or a SeparatorModel), bare (not wrapped for training). card: the
    README's Markdown. extra: further entries of config.json, such as `variant`, `licence`, `source_sha256`, `trained`.
    """
    from safetensors.torch import save

    reserved = {"format", "version", "kind", "model"} & set(extra or {})
    if reserved:
        raise ValueError(f"extra must not hold {sorted(reserved)}")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    folder = Path(path)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "created_with": __version__,
        "kind": config.kind,
        "model": config.without_files().to_dict(),
        **(extra or {}),
    }
    content = save(state)
    files.write_atomic(folder / WEIGHTS, lambda file: file.write(content))
    files.write_atomic(folder / CARD, lambda file: file.write(card.encode()))
    files.write_json(folder / CONFIG, description)  # last: without it the folder is no model


def load(
    source: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    *,
    kind: str | None = None,
) -> Any:
    """A trained model, ready for use: an `AVModel`, a `Classifier` (which is one, too), a `Tagger` or a `Separator`, by
    what the folder holds.

    source: a bundled model's name (`tiny`), `hf-hub:ORG/NAME` (needs the package huggingface_hub), or the path of a
    model folder; a folder with a bundled name is meant by `./tiny`. dtype: compute towers and heads in this type (e.g.
    `torch.bfloat16` or "bfloat16"); weights, front end and results stay float32; taggers and separators are always
    float32. kind: the one of `KINDS` that is wanted; another is refused.

    Raises ModelError naming the file and the key if something is missing, damaged or does not fit.
    """
    folder = find_folder(source)
    model, description = load_network(folder, kind, to_use=True)
    user = _named(KINDS[model_kind(description)].user)
    loaded = user(model, device=device, dtype=dtype or torch.float32, description=description)
    if (folder / CARD).is_file():
        loaded.card = (folder / CARD).read_text(encoding="utf-8", errors="replace")
    return loaded


def load_network(
    source: str | os.PathLike[str], kind: str | None = None, *, to_use: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The bare network of a model folder with its weights, as `load` finds and checks it, and its config.json.

    to_use: also a kind that can be used as the wanted one.
    """
    folder = find_folder(source)
    description = read_description(folder)
    found = model_kind(description)
    if found not in KINDS:
        raise ModelError(f'{folder / CONFIG}: key "kind" is {found!r}; {nearest(found, KINDS)}')
    if kind not in (None, found) and not (to_use and KINDS[found].also == kind):
        raise ModelError(f"{folder}: holds a model of the kind {found!r}, but {kind!r} is needed; name another folder")
    try:
        config = KINDS[found].config.from_dict(description["model"]).without_files()
        model = create_network(config)
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    load_into(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    return model, description


def model_kind(description: dict[str, Any]) -> str:
    """What the folder holds, one of `KINDS`; those of the first version say nothing and hold two towers."""
    return str(description.get("kind", "two_tower"))


def create_network(config: Config) -> nn.Module:
    """The network that this configuration describes, with new weights (or those of the files that it names)."""
    return _named(KINDS[config.kind].network)(config)


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def read_description(folder: Path) -> dict[str, Any]:
    """The content of a model folder's config.json. Raises ModelError if it is absent or not one of ours."""
    path = folder / CONFIG
    try:
        description = files.read_json(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; a model folder holds {WEIGHTS}, {CONFIG} and {CARD}") from None
    except (ValueError, RecursionError) as error:  # damaged, or made to be: nested without end, numbers without end
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


def find_folder(source: str | os.PathLike[str]) -> Path:
    """The folder of a model that `load` takes. Raises ModelError if there is none."""
    if isinstance(source, str):
        if source.startswith(HUB_PREFIX):
            return hub.fetch(source.removeprefix(HUB_PREFIX), [WEIGHTS, CONFIG, CARD])
        if source in bundled_models():
            return BUNDLED / source
        if source == starter.NAME:
            return starter.made()
    folder = Path(source)
    if not folder.is_dir():
        known = ", ".join(bundled_models()) or "none"
        raise ModelError(
            f"{source}: no such model folder, nor a bundled model (bundled: {known}); "
            f"give a folder, a bundled name or {HUB_PREFIX}ORG/NAME"
        )
    return folder
