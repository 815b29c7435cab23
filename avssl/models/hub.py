"""Models to and from folders and the Hugging Face Hub, under the names that its users know.

Folders need no package and no network. The Hub needs huggingface_hub (the extra `hub`); what was fetched once is found
in its cache without a network, too, and HF_HUB_OFFLINE=1 asks for nothing else.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from avssl.errors import ModelError

HUB_PREFIX = "hf-hub:"
CURE = "pip install 'avssl[hub]'"


class HubMixin:
    """`from_pretrained`, `save_pretrained` and `push_to_hub` for what `avssl.load` gives.

    Has `network`, its weights; `description`, the config.json it came with, and `card`, the README.md beside it.
    """

    network: nn.Module
    description: dict[str, Any]
    card: str = ""

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], *, device: str | torch.device = "cpu", dtype: Any = None
    ) -> Self:
        """`avssl.load` of a model folder, a bundled name, `ORG/NAME` of the Hub or `hf-hub:ORG/NAME`.

        A folder of that name goes before the Hub. Raises ModelError if there is none, or it is of another kind.
        """
        from avssl.models.folder import load

        loaded = load(hub_name(name), device=device, dtype=dtype)
        if not isinstance(loaded, cls):
            raise ModelError(f"{name}: holds a {type(loaded).__name__}, not a {cls.__name__}; use avssl.load")
        return loaded

    def save_pretrained(self, folder: str | os.PathLike[str], *, card: str | None = None) -> None:
        """Write the model folder with the weights as they are now; `card` replaces the README.md it came with."""
        from avssl.models.folder import KINDS, model_kind, save_model

        kind = model_kind(self.description)
        config = KINDS[kind].config.from_dict(self.description["model"])
        kept = ("format", "version", "created_with", "kind", "model")
        extra = {key: value for key, value in self.description.items() if key not in kept}
        save_model(folder, self.network, config, card=card or self.card or _card(kind), extra=extra)

    def push_to_hub(
        self, name: str, *, private: bool = False, token: str | None = None, message: str = "Upload with avssl"
    ) -> str:
        """Upload the model folder to the repository `ORG/NAME`, which is made if there is none; returns its address.

        token: by default the one that `hf auth login` has stored. The README gets what the Hub reads about licence and
        library, unless it begins with that already. Raises ModelError in one sentence for all that can go wrong.
        """
        api = _hub(name).HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=_for_the_hub(self.card or _card("model"), self.description))
            try:
                address = str(api.create_repo(name, private=private, exist_ok=True))
                api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
            except Exception as error:  # no token, no access, no network: many types, over several libraries
                raise ModelError(
                    f"{name}: cannot be uploaded ({_reason(error)}); check name, token (hf auth login) and network"
                ) from error
        return address


def hub_name(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """`ORG/NAME` as `hf-hub:ORG/NAME` unless a folder is called so."""
    if isinstance(name, str) and not name.startswith(HUB_PREFIX) and not Path(name).exists():
        org, slash, rest = name.partition("/")
        if slash and org not in ("", ".", "..", "~") and rest and "/" not in rest:
            return HUB_PREFIX + name
    return name


def fetch(repository: str, files: list[str]) -> Path:
    """Download `files` of a repository, or find them in the local cache. Raises ModelError in one sentence."""
    try:
        return Path(_hub(HUB_PREFIX + repository).snapshot_download(repository, allow_patterns=files))
    except ModelError:
        raise
    except Exception as error:  # offline, no such repository, bad name, no access: many types, over several libraries
        raise ModelError(
            f"{HUB_PREFIX}{repository}: cannot be fetched ({_reason(error)}); check name and network, or give a local"
            " folder"
        ) from error


def _hub(name: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(f"{name}: needs the package huggingface_hub; run {CURE}") from None
    return huggingface_hub


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _card(kind: str) -> str:
    return f"# {kind}\n\nA model folder of avssl: `avssl.load(FOLDER)`.\n"


def _for_the_hub(card: str, description: dict[str, Any]) -> str:
    if card.startswith("---\n"):
        return card
    licence = str(description.get("licence", "")).lower()
    known = licence if licence in ("apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0") else "other"
    return f"---\nlibrary_name: avssl\nlicense: {known}\ntags:\n- audio-visual\n---\n\n{card}"
