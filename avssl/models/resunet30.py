"""The separator of USS and AudioSep: a U-Net on magnitudes, conditioned by shifts, that masks and turns the spectrum.

Source: Kong et al., "Universal Source Separation with Weakly Labelled Data" (arXiv 2305.07447); Liu et al., AudioSep
(arXiv 2308.05037) is the same network with another condition. Parameter names are those of the published checkpoints
without `base.`, but for the conditioning, whose linear layers are stacked. The published network also carries a
normalisation and a shift in each decoder block that nothing reads; they are left out (3,200 of 21,391,813 parameters).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.errors import UsageError
from avssl.models.film import AdditiveFilm
from avssl.models.separation_config import SeparatorConfig
from avssl.models.stft import Stft, power

if TYPE_CHECKING:
    from avssl.models.resunet30_fast import FastResUNet30

SLOPE = 0.01  # of the leaky ReLUs
MAGNITUDE_FLOOR = 1e-10  # of the power under the square root
TIME_MULTIPLE = 32  # five blocks halve the time


class ConvBlock(nn.Module):
    """shortcut(x) + conv2(act(bn2(conv1(act(bn1(x) + β1))) + β2)); takes two shifts."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.bn1, self.bn2 = _norm(in_channels), _norm(channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, 1)
        self.shifts: tuple[int, ...] = (in_channels, channels)

    def forward(self, x: Tensor, shift1: Tensor, shift2: Tensor) -> Tensor:
        y = self.conv1(_act(self.bn1(x) + shift1))
        y = self.conv2(_act(self.bn2(y) + shift2))
        return self.shortcut(x) + y


class EncoderBlock(nn.Module):
    """A ConvBlock; its output is the skip, its output averaged over `pool` (time, frequency) goes deeper."""

    def __init__(self, in_channels: int, channels: int, pool: tuple[int, int]):
        super().__init__()
        self.conv_block1 = ConvBlock(in_channels, channels)
        self.pool = pool
        self.shifts: tuple[int, ...] = self.conv_block1.shifts

    def forward(self, x: Tensor, *shifts: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.conv_block1(x, *shifts)
        return F.avg_pool2d(skip, self.pool), skip


class DecoderBlock(nn.Module):
    """Transposed convolution by `up` (time, frequency), then a ConvBlock over it and the skip; takes three shifts."""

    def __init__(self, in_channels: int, channels: int, up: tuple[int, int]):
        super().__init__()
        self.bn1 = _norm(in_channels)
        self.conv1 = nn.ConvTranspose2d(in_channels, channels, up, up, bias=False)
        self.conv_block2 = ConvBlock(2 * channels, channels)
        self.up = up
        self.shifts: tuple[int, ...] = (in_channels, *self.conv_block2.shifts)

    def forward(self, x: Tensor, skip: Tensor, shift: Tensor, *shifts: Tensor) -> Tensor:
        y = self.conv1(_act(self.bn1(x) + shift))
        return self.conv_block2(torch.cat([y, skip], dim=1), *shifts)


class ResUNet30(nn.Module):
    """mixture [B, S], condition [B, C] -> the one source that the condition asks for, [B, S].

    The condition may also be [1, C] or [C], for all. In evaluation mode, without gradients, on a CPU and in float32 a
    second form of the same network computes the same numbers faster (`avssl.models.resunet30_fast`). It is made of a
    copy of the weights, anew whenever they were changed in place, loaded, moved or trained.
    """

    def __init__(self, config: SeparatorConfig):
        super().__init__()
        self.config = config
        self.stft = Stft(config.fft, config.hop)
        widths = config.channels
        self.bn0 = nn.BatchNorm1d(config.fft // 2 + 1, momentum=0.01)  # every frequency for itself
        self.pre_conv = nn.Conv2d(1, widths[0], 1)
        self.encoder_block1 = EncoderBlock(widths[0], widths[0], (2, 2))
        self.encoder_block2 = EncoderBlock(widths[0], widths[1], (2, 2))
        self.encoder_block3 = EncoderBlock(widths[1], widths[2], (2, 2))
        self.encoder_block4 = EncoderBlock(widths[2], widths[3], (2, 2))
        self.encoder_block5 = EncoderBlock(widths[3], widths[4], (2, 2))
        self.encoder_block6 = EncoderBlock(widths[4], widths[5], (1, 2))
        self.conv_block7a = EncoderBlock(widths[5], widths[6], (1, 1))
        self.decoder_block1 = DecoderBlock(widths[6], widths[5], (1, 2))
        self.decoder_block2 = DecoderBlock(widths[5], widths[4], (2, 2))
        self.decoder_block3 = DecoderBlock(widths[4], widths[3], (2, 2))
        self.decoder_block4 = DecoderBlock(widths[3], widths[2], (2, 2))
        self.decoder_block5 = DecoderBlock(widths[2], widths[1], (2, 2))
        self.decoder_block6 = DecoderBlock(widths[1], widths[0], (2, 2))
        self.after_conv = nn.Conv2d(widths[0], 3, 1)
        self.apply(_initialise)
        blocks: dict[str, EncoderBlock | DecoderBlock] = {**self.encoders, **self.decoders}
        layout = {name: block.shifts for name, block in blocks.items()}
        self.film = AdditiveFilm(config.condition_dim, layout)
        self._snapshot: tuple[list[tuple[int, int]], FastResUNet30] | None = None

    @property
    def encoders(self) -> dict[str, EncoderBlock]:
        """By name, from the top down to the bottom block, which pools nothing and whose skip is not used."""
        return {name: block for name, block in self.named_children() if isinstance(block, EncoderBlock)}

    @property
    def decoders(self) -> dict[str, DecoderBlock]:
        """By name, from the bottom up."""
        return {name: block for name, block in self.named_children() if isinstance(block, DecoderBlock)}

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """Raises UsageError where condition and mixture do not go together."""
        condition = self._checked(mixture, condition)
        spectrum = self.stft(mixture)
        magnitude = power(spectrum).clamp(min=MAGNITUDE_FLOOR).sqrt()
        maps = (self._fast() if self._can_be_fast() else self).maps(magnitude, condition)
        return self.stft.inverse(apply_maps(spectrum, maps), mixture.shape[-1])

    def maps(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """[B, T, fft // 2 + 1], [B or 1, C] -> [B, 3, T, fft // 2]: what `apply_maps` takes."""
        shifts = self.film(condition)
        frames = magnitude.shape[1]
        x = self.bn0(magnitude.transpose(1, 2)).transpose(1, 2)
        x = F.pad(x[..., :-1], (0, 0, 0, -frames % TIME_MULTIPLE))
        x = self.pre_conv(x[:, None])
        skips = []
        for name, encoder in self.encoders.items():
            x, skip = encoder(x, *shifts[name])
            skips.append(skip)
        skips.pop()
        for name, decoder in self.decoders.items():
            x = decoder(x, skips.pop(), *shifts[name])
        return self.after_conv(x)[:, :, :frames]

    def train(self, mode: bool = True) -> ResUNet30:
        self._snapshot = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_snapshot": None}  # a copy makes its own

    def _can_be_fast(self) -> bool:
        weight = self.pre_conv.weight
        return not (self.training or torch.is_grad_enabled()) and weight.is_cpu and weight.dtype == torch.float32

    def _fast(self) -> FastResUNet30:
        from avssl.models.resunet30_fast import FastResUNet30

        tensors = [*self.parameters(), *self.buffers()]
        state = [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
        if self._snapshot is None or self._snapshot[0] != state:
            self._snapshot = state, FastResUNet30(self)
        return self._snapshot[1]

    def _checked(self, mixture: Tensor, condition: Tensor) -> Tensor:
        condition = torch.atleast_2d(condition)
        if mixture.dim() != 2 or condition.shape[0] not in (1, len(mixture)):
            raise UsageError(
                f"separator: mixture {tuple(mixture.shape)} and condition {tuple(condition.shape)} do not go together; "
                "give [B, S] and [B, C], or [C] for all"
            )
        if condition.shape[1] != self.config.condition_dim:
            raise UsageError(
                f"separator: the condition has {condition.shape[1]} numbers, this network wants "
                f"{self.config.condition_dim}; use the query it was trained with"
            )
        return condition


def apply_maps(spectrum: Tensor, maps: Tensor) -> Tensor:
    """Complex [B, T, F], maps [B, 3, T, F - 1] -> the source's spectrum [B, T, F].

    Y = X σ(z0) e^{jθ}, with θ the angle of (tanh z1, tanh z2): the magnitude can only shrink. The last bin is zero.
    """
    z0, z1, z2 = maps.float().unbind(1)
    real, imaginary = z1.tanh(), z2.tanh()
    # The floor makes a direction (and gradient) of zero where there is none.
    scale = z0.sigmoid() * (real.square() + imaginary.square()).clamp(min=1e-20).rsqrt()
    return F.pad(spectrum[..., :-1] * torch.complex(real * scale, imaginary * scale), (0, 1))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=0.01)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
