"""The eight-layer sound network of aiSFX, trained on libraries of sound effects.

Source: Ma and Lerch, Representation Learning for the Automatic Indexing of Sound Effects Libraries (ISMIR 2022).
`weights` takes the checkpoint of the PyPI package aisfx.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avssl.errors import ModelError
from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.registry import register
from avssl.models.tower import Tower
from avssl.models.weights import is_state_dict, load_into, read_pytorch, read_weights

WIDTHS = (64, 128, 256, 512)
FRAMES, HOP, RATE_HZ = 100, 1024, 44100
INPUT = AudioInput(RATE_HZ, FRAMES * HOP / RATE_HZ, 1, FrontEndConfig("effects_mel"))
_PREFIX = "embedding_net."
# The package's file holds counts as NumPy numbers, which torch reads only if told what these names mean.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
    np.dtype,
    type(np.dtype(np.int64)),
]


class PooledBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and ReLU, then the largest of `pool` x `pool` cells."""

    def __init__(self, in_channels: int, channels: int, pool: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        return self.pool(self.bn2(self.conv2(x)).relu())


class MeanThenMax(nn.Module):
    """[B, C, time, frequency] -> [B, C]: the mean over frequency, of which the largest over time."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(3).amax(2)


@register("audio", "effects_cnn8", input=INPUT, source="aiSFX (ISMIR 2022)")
class EffectsCNN8(Tower):
    """[B, 1, time, 96] -> [B, 512]."""

    feature_dim = WIDTHS[-1]
    stage_names = ("conv_block1", "conv_block2", "conv_block3", "conv_block4", "pool")

    def __init__(self, in_channels: int = 1):
        super().__init__()
        widths = (in_channels, *WIDTHS)
        for number in range(1, 5):
            self.add_module(
                f"conv_block{number}", PooledBlock(widths[number - 1], widths[number], 2 if number < 4 else 1)
            )
        self.pool = MeanThenMax()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load_weights(self, path: str) -> None:
        load_into(self, _state(Path(path)), path)


def _state(path: Path) -> dict[str, Tensor]:
    """Our entries of a file, which may be the package's: a state dict in a pair with facts of its training."""
    if path.suffix == ".safetensors":
        return read_weights(path)
    with torch.serialization.safe_globals(_NUMBERS):
        content = read_pytorch(path)
    state = content[0] if isinstance(content, (tuple, list)) and content else content
    if not is_state_dict(state):
        raise ModelError(f"{path}: holds no state dict; give the checkpoint.pth of the package aisfx")
    ours = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    return ours or dict(state)
