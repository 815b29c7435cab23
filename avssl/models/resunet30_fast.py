"""ResUNet30 for inference on CPUs: the same numbers as the plain form up to rounding, computed faster.

What is different: normalisations are folded into convolutions, scales and shifts; one matrix product gives all shifts,
constants included; channels come last; transposed convolutions are matrix products; wide convolutions are Winograd's;
the large maps are computed in strips of frames, so that what lies between two convolutions stays near the core and no
large memory is taken anew; and the decoder leaves out frames that only the padding needed. A batch is computed item by
item, which is no slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avssl.models.resunet30 import SLOPE, TIME_MULTIPLE, ConvBlock, DecoderBlock, EncoderBlock, ResUNet30
from avssl.models.winograd import transform_kernel, winograd_conv

_STRIP_BYTES = 2**23  # of a block's input at once, per thread
_WIDE = 128  # input channels from which Winograd's convolution is faster than the direct one

Source = Callable[[int, int], Tensor]  # rows begin to end of a block's input, [end - begin, F, channels]


class FastResUNet30:
    """A snapshot of a network's weights in a form that is fast to compute with. Float32, CPU, no gradients.

    Maps are [T, F, channels] here, one item at a time.
    """

    def __init__(self, net: ResUNet30):
        constants: list[Tensor] = []
        self.encoders = {name: _Encoder(block, constants) for name, block in net.encoders.items()}
        self.decoders = {name: _Decoder(block, constants) for name, block in net.decoders.items()}
        self.cut = net.film.cut
        self.shift_weight = net.film.linear.weight
        self.shift_bias = net.film.linear.bias + torch.cat(constants)
        self.scale0, self.shift0 = _fold(net.bn0)
        self.pre_weight, self.pre_bias = _matrix(net.pre_conv)
        self.after_weight, self.after_bias = _matrix(net.after_conv)

    def maps(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """As `ResUNet30.maps`: [B, T, fft // 2 + 1], [B or 1, C] -> [B, 3, T, fft // 2]."""
        with torch.autocast("cpu", enabled=False):
            shifts = F.linear(condition.float(), self.shift_weight, self.shift_bias).expand(len(magnitude), -1)
            items = [self._item(*item) for item in zip(magnitude.float(), shifts, strict=True)]
        return torch.stack(items).permute(0, 3, 1, 2)

    def _item(self, magnitude: Tensor, all_shifts: Tensor) -> Tensor:
        """[T, fft // 2 + 1], [widths] -> [T, fft // 2, 3]."""
        frames = len(magnitude)
        shifts = {name: [shift[0] for shift in several] for name, several in self.cut(all_shifts[None]).items()}
        x = torch.addcmul(self.shift0, magnitude, self.scale0)[:, :-1]
        x = F.pad(x, (0, 0, 0, -frames % TIME_MULTIPLE))
        x = torch.addcmul(self.pre_bias, x[..., None], self.pre_weight[:, 0])
        skips = []
        for name, encoder in self.encoders.items():
            x, skip = encoder(x, *shifts[name])
            skips.append(skip)
        skips.pop()
        needed = self._rows_needed(frames)
        for name, decoder in self.decoders.items():
            x = decoder(x, skips.pop(), needed[name], *shifts[name])
        return F.linear(x[:frames], self.after_weight, self.after_bias)

    def _rows_needed(self, frames: int) -> dict[str, int]:
        """How many rows of each decoder's output matter: the two convolutions of a block look two rows further."""
        needed = {}
        for name, decoder in reversed(self.decoders.items()):
            up = decoder.up[0]
            needed[name] = -(-frames // up) * up
            frames = -(-(needed[name] + 2) // up)
        return needed


class _Encoder:
    def __init__(self, block: EncoderBlock, constants: list[Tensor]):
        self.block, self.pool = _Block(block.conv_block1, constants), block.pool

    def __call__(self, x: Tensor, shift1: Tensor, shift2: Tensor) -> tuple[Tensor, Tensor]:
        rows, width, _ = x.shape
        skip = self.block(lambda begin, end: x[begin:end], (rows, width), rows, shift1, shift2)
        return _flat_maps(F.avg_pool2d(_as_maps(skip), self.pool)), skip


class _Decoder:
    def __init__(self, block: DecoderBlock, constants: list[Tensor]):
        self.scale, shift = _fold(block.bn1)
        constants.append(shift)
        self.block, self.up = _Block(block.conv_block2, constants), block.up
        self.up_weight = block.conv1.weight.permute(0, 2, 3, 1).flatten(1).contiguous()  # [in, up x up x out]

    def __call__(self, x: Tensor, skip: Tensor, rows: int, shift: Tensor, shift1: Tensor, shift2: Tensor) -> Tensor:
        total, width, channels = skip.shape
        up_rows, up_width = self.up

        def source(begin: int, end: int) -> Tensor:
            """The concatenation of what comes from below and the skip; `begin` and `end` are multiples of `up`."""
            below = x[begin // up_rows : end // up_rows]
            y = F.leaky_relu_(torch.addcmul(shift, below, self.scale), SLOPE) @ self.up_weight
            both = x.new_empty(end - begin, width, 2 * channels)
            places = both.view(len(below), up_rows, width // up_width, up_width, 2 * channels)
            places[..., :channels] = y.view(*y.shape[:2], up_rows, up_width, channels).transpose(1, 2)
            both[..., channels:] = skip[begin:end]
            return both

        return self.block(source, (total, width), min(rows, total), shift1, shift2)


class _Block:
    """ConvBlock, strip by strip of rows."""

    def __init__(self, block: ConvBlock, constants: list[Tensor]):
        self.scale1, shift1 = _fold(block.bn1)
        scale2, shift2 = _fold(block.bn2)
        constants += [shift1, shift2]
        self.conv1 = _Conv(block.conv1.weight * scale2[:, None, None, None])
        self.conv2 = _Conv(block.conv2.weight)
        self.in_channels, self.channels = block.conv1.weight.shape[1], block.conv1.weight.shape[0]
        self.shortcut: tuple[Tensor, Tensor] | None = None
        if isinstance(block.shortcut, nn.Conv2d):
            self.shortcut = _matrix(block.shortcut)

    def __call__(self, source: Source, size: tuple[int, int], rows: int, shift1: Tensor, shift2: Tensor) -> Tensor:
        """The first `rows` rows of the block's output for an input of `size` (rows, width)."""
        total, width = size
        out = shift1.new_empty(rows, width, self.channels)
        step = max(16, _STRIP_BYTES * torch.get_num_threads() // (4 * width * self.in_channels) // 16 * 16)
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            low, high = max(begin - 2, 0), min(end + 2, total)
            x = source(low, high)
            # Rows outside the picture are zero for both convolutions.
            above, below = low - (begin - 2), end + 2 - high
            a = x.new_empty(end - begin + 4, width, self.in_channels)
            a[:above], a[len(a) - below :] = 0, 0
            inside = a[above : len(a) - below]
            F.leaky_relu_(torch.addcmul(shift1, x, self.scale1, out=inside), SLOPE)
            c = F.leaky_relu_(self.conv1(a, shift2), SLOPE)
            c[: max(above - 1, 0)], c[len(c) - max(below - 1, 0) :] = 0, 0
            self._add_shortcut(self.conv2(c), x[begin - low : end - low], out[begin:end])
        return out

    def _add_shortcut(self, y: Tensor, x: Tensor, out: Tensor) -> None:
        if self.shortcut is None:
            torch.add(y, x, out=out)
        else:
            weight, bias = self.shortcut
            torch.add(y, bias, out=out)
            out.view(-1, self.channels).addmm_(x.reshape(-1, self.in_channels), weight.t())


class _Conv:
    """3x3 convolution of rows [R + 2, F, in] -> [R, F, out]: zeros only beyond the ends of a row."""

    def __init__(self, weight: Tensor):
        self.wide = min(weight.shape[:2]) >= _WIDE
        self.weight = transform_kernel(weight) if self.wide else weight.contiguous(memory_format=torch.channels_last)

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.wide:
            return winograd_conv(x, self.weight, bias)
        return _flat_maps(F.conv2d(_as_maps(x), self.weight, bias, padding=(0, 1)))


def _fold(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a normalisation with fixed statistics."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


def _matrix(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """A 1x1 convolution as weight [out, in] and bias [out]."""
    assert conv.bias is not None
    return conv.weight.flatten(1), conv.bias


def _as_maps(x: Tensor) -> Tensor:
    """[T, F, C] -> [1, C, T, F], the same memory."""
    return x[None].permute(0, 3, 1, 2)


def _flat_maps(x: Tensor) -> Tensor:
    """[1, C, T, F], channels last -> [T, F, C], the same memory."""
    return x[0].permute(1, 2, 0)
