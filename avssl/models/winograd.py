"""3x3 convolutions with 2.25 times fewer multiplications, for many channels on a CPU.

Winograd's F(2x2, 3x3) (Lavin & Gray, arXiv 1509.09308): each 2x2 tile of the result comes from a 4x4 tile of the input.
Input and kernel are transformed by sums and differences, multiplied in 16 matrix products over the channels, and
transformed back. Sums of products run over C instead of 9 C terms, so float32 rounds less than in a direct convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_KERNEL = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
_TILES_BYTES = 2**23  # of transformed input at once, per thread: near the core, yet no small operations


def transform_kernel(weight: Tensor) -> Tensor:
    """[out, in, 3, 3] -> [16, in, out], what `winograd_conv` multiplies by."""
    tiles = torch.kron(_KERNEL, _KERNEL) @ weight.double().reshape(-1, 9).t()
    return tiles.view(16, *weight.shape[:2]).transpose(1, 2).to(weight.dtype).contiguous()


def winograd_conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Rows [R + 2, W, in] -> [R, W, out] for even W: no padding at the rows' ends, one zero at those of W.

    kernel: of `transform_kernel`. bias: [out].
    """
    rows, width = x.shape[0] - 2, x.shape[1]
    channels = kernel.shape[2]
    # Room for an odd number of rows and the zeros beyond both ends of a row.
    padded = F.pad(x, (0, 0, 1, 1, 0, rows % 2))
    out = x.new_empty((rows + 1) // 2 * 2, width, channels)
    # No less input at once than kernel, which is read for every strip.
    at_once = max(_TILES_BYTES * torch.get_num_threads(), kernel.nbytes)
    step = max(1, at_once // (16 * width // 2 * x.shape[2] * x.element_size())) * 2
    for begin in range(0, rows, step):
        strip = padded[begin : begin + step + 2]
        _strip(strip, kernel, bias, out[begin : begin + len(strip) - 2])
    return out[:rows]


def _strip(x: Tensor, kernel: Tensor, bias: Tensor | None, out: Tensor) -> None:
    h, w = out.shape[0] // 2, out.shape[1] // 2
    lines = x.new_empty(4, h, x.shape[1], x.shape[2])
    _differences(x[0::2], x[1::2], lines, 0)
    tiles = x.new_empty(4, 4, h, w, x.shape[2])
    _differences(lines[:, :, 0::2], lines[:, :, 1::2], tiles.transpose(0, 1), 2)
    products = torch.bmm(tiles.view(16, h * w, -1), kernel).view(4, 4, h, w, -1)
    half = x.new_empty(2, *products.shape[1:])
    _sums(products, half)
    result = out.view(h, 2, w, 2, -1).permute(3, 1, 0, 2, 4)
    _sums(half.transpose(0, 1), result)
    if bias is not None:
        out += bias


def _differences(even: Tensor, odd: Tensor, out: Tensor, dim: int) -> None:
    """Bᵀ d along `dim`: from even and odd places, one more of each than tiles, to the four values of each tile."""
    tiles = even.shape[dim] - 1
    d0, d2 = even.narrow(dim, 0, tiles), even.narrow(dim, 1, tiles)
    d1, d3 = odd.narrow(dim, 0, tiles), odd.narrow(dim, 1, tiles)
    torch.sub(d0, d2, out=out[0])
    torch.add(d1, d2, out=out[1])
    torch.sub(d2, d1, out=out[2])
    torch.sub(d1, d3, out=out[3])


def _sums(m: Tensor, out: Tensor) -> None:
    """Aᵀ m along the first axis: four values to two."""
    torch.add(m[0], m[1], out=out[0]).add_(m[2])
    torch.sub(m[1], m[2], out=out[1]).sub_(m[3])
