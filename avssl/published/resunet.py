"""The names of ResUNet30 in the checkpoints of USS and AudioSep, and ours.

Ours stacks the linear layers of the condition and leaves out what nothing reads: in each decoder block a normalisation
and the layer of a shift. On the way back those are as they were before any training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avssl.models.resunet30 import ResUNet30
from avssl.models.separation_config import SeparatorConfig
from avssl.published.checkpoint import State
from avssl.published.sound import analysis_kernels, overlap_window, synthesis_kernels

PREFIX = "ss_model."
_FILM = "film.linear."
_ENCODER = ("conv_block1->beta1", "conv_block1->beta2")
_DECODER = ("beta1", "conv_block2->beta1", "conv_block2->beta2")


def condition_dim(state: State) -> int:
    """The length of the condition that a published state dict takes; 1 where none can be seen."""
    weight = state.get(f"{PREFIX}film.encoder_block1->conv_block1->beta1.weight")
    return weight.shape[1] if weight is not None and weight.ndim == 2 and weight.shape[1] else 1


def expected(condition_dim: int) -> State:
    """Names, shapes and types of the published separator's 332 entries."""
    with torch.device("meta"):
        network = ResUNet30(SeparatorConfig(condition_dim))
    return {key: tensor.to("meta") for key, tensor in to_published(network.state_dict(), network).items()}


def from_published(state: State, network: ResUNet30) -> State:
    """Our state dict from a published one of the same condition."""
    ours = {key: state[f"{PREFIX}base.{key}"] for key in network.state_dict() if not key.startswith(_FILM)}
    for part in ("weight", "bias"):
        ours[_FILM + part] = torch.cat([state[f"{PREFIX}film.{layer}.{part}"] for layer, _ in layers(network)])
    return ours


def to_published(state: State, network: ResUNet30) -> State:
    """The inverse of `from_published`, with constants and what nothing reads."""
    theirs = {f"{PREFIX}base.{key}": tensor for key, tensor in state.items() if not key.startswith(_FILM)}
    widths = [width for _, width in layers(network)]
    for part in ("weight", "bias"):
        pieces = state[_FILM + part].split(widths)
        names = [f"{PREFIX}film.{layer}.{part}" for layer, _ in layers(network)]
        theirs |= {name: piece.clone() for name, piece in zip(names, pieces, strict=True)}
    dim = network.config.condition_dim
    for block, decoder in network.decoders.items():
        width = decoder.bn1.num_features
        unused = torch.nn.BatchNorm2d(width).state_dict()
        theirs |= {f"{PREFIX}base.{block}.bn2.{key}": tensor for key, tensor in unused.items()}
        theirs |= {f"{PREFIX}film.{block}->beta2.weight": torch.zeros(width, dim)}
        theirs |= {f"{PREFIX}film.{block}->beta2.bias": torch.zeros(width)}
    return theirs | constants(network.config.fft)


def constants(fft: int) -> dict[str, Tensor]:
    """The entries that hold the Fourier transform and its inverse."""
    kernels = {"stft": analysis_kernels(fft), "istft": synthesis_kernels(fft)}
    found = {
        f"{PREFIX}base.{name}.conv_{part}.weight": kernel
        for name, pair in kernels.items()
        for part, kernel in zip(("real", "imag"), pair, strict=True)
    }
    return found | {f"{PREFIX}base.istft.ola_window": overlap_window(fft)}


def layers(network: ResUNet30) -> list[tuple[str, int]]:
    """The published layers of the condition that ours stacks, in its order, with their widths."""
    return [
        (f"{block}->{path}", width)
        for block, widths in network.film.layout.items()
        for path, width in zip(_DECODER if block in network.decoders else _ENCODER, widths, strict=True)
    ]
