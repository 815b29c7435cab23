"""What the layouts of networks of sound share: a card, and the transforms that their checkpoints store as weights.

The published networks compute Fourier transforms as convolutions, whose kernels lie in every file. Here they are
derived: on the way in they are checked, on the way back they are made again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl import __version__
from avssl.errors import ConfigError, ModelError
from avssl.models.folder import CONFIG, KINDS, WEIGHTS, model_kind, read_description, save_model
from avssl.models.weights import read_weights
from avssl.published.checkpoint import Checkpoint, State
from avssl.published.layout import Conversion, Layout

_TOLERANCE = 1e-4  # of a stored constant: two libraries round differently

_CARD = """# {title}, converted

Weights in the layout that {title} was published in, brought into the format of avssl {version}. Nothing was trained or
evaluated here.

| | |
| --- | --- |
| source | `{file}`, sha256 `{sha256}` |
| layout | `{layout}`, {entries} entries, {parameters:,} parameters |
| licence | **{licence}** |
| left out | {left_out} |

```python
import avssl
model = avssl.load("PATH/TO/THIS/FOLDER")
{use}
```
{warnings}"""


class SoundLayout(Layout):
    """A tagger or a separator. use: a line of Python for the card."""

    use: str

    def facts(self, checkpoint: Checkpoint, model: torch.nn.Module, **variant: Any) -> dict[str, Any]:
        """What config.json says of where the weights come from."""
        return {
            "source": {
                "layout": self.name,
                "file": checkpoint.path.name,
                "epoch": checkpoint.epoch,
                "entries": len(checkpoint.model),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
            },
            "source_sha256": checkpoint.sha256,
            "variant": variant,
            "licence": self.licence,
        }

    def write(self, folder: Path, conversion: Conversion) -> None:
        facts = conversion.facts
        card = _CARD.format(
            title=self.title,
            version=__version__,
            use=self.use,
            licence=self.licence,
            sha256=facts["source_sha256"],
            left_out=", ".join(facts["left_out"]) or "nothing",
            warnings="".join(f"\n**Note:** {warning}.\n" for warning in conversion.warnings),
            **facts["source"],
        )
        save_model(folder, conversion.model, conversion.config, card=card, extra=facts)


def read_folder(folder: Path, kind: str) -> tuple[Any, State]:
    """Configuration and weights of a model folder. Raises ModelError if it holds another kind of model."""
    description = read_description(folder)
    if model_kind(description) != kind:
        raise ModelError(f"{folder}: holds a {model_kind(description)!r} model, this layout is of a {kind!r}")
    try:
        return KINDS[kind].config.from_dict(description["model"]), read_weights(folder / WEIGHTS)
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error


def check_constants(checkpoint: Checkpoint, expected: State) -> None:
    """Raise ModelError where a stored transform is not the one that is derived here: other settings than are known."""
    for key, tensor in expected.items():
        found = checkpoint.model[key]
        if (found - tensor).abs().max() > _TOLERANCE * tensor.abs().max():
            raise ModelError(
                f"{checkpoint.path}: {key} is not what its layout derives (another window, rate or filter bank);"
                " convert the file as it was published"
            )


def analysis_kernels(fft: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the windowed Fourier transform as convolution kernels [fft // 2 + 1, 1, fft]."""
    real, imaginary = _turns(fft)
    bins = fft // 2 + 1
    return tuple(_float(part[:bins] * _window(fft))[:, None] for part in (real, -imaginary))  # type: ignore[return-value]


def synthesis_kernels(fft: int) -> tuple[Tensor, Tensor]:
    """Those of the inverse transform [fft, fft, 1], windowed."""
    real, imaginary = _turns(fft)
    window = _window(fft)[:, None] / fft
    return tuple(_float(part * window)[:, :, None] for part in (real, imaginary))  # type: ignore[return-value]


def overlap_window(fft: int) -> Tensor:
    """[fft]: the squared window, by whose overlap the inverse transform is divided."""
    return _float(_window(fft) ** 2)


def _turns(fft: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π k n / fft, [k, n]; exact reduction of the product keeps large angles precise."""
    angle = 2 * np.pi / fft * (np.outer(np.arange(fft), np.arange(fft)) % fft)
    return np.cos(angle), np.sin(angle)


def _window(fft: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)


def _float(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))
