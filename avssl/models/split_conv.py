"""3D convolutions that are split into space and time, computed as the 2D convolutions they are.

Kept channels-last ([B, T, H, W, C] in memory), a video is a stack of pictures and also a picture of T x HW points,
without moving a number; 2D kernels are the fastest that CPU and GPU libraries have. On other layouts the results are
the same. Outputs are views: what follows must not work in place, or autograd copies them. Weights stay those of
`nn.Conv3d`, five-dimensional, under the same names.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SpaceConv(nn.Conv3d):
    """A 1 x size x size convolution of each frame, zeros around it: [B, C, T, H, W] -> [B, channels, T, H', W']."""

    def __init__(self, in_channels: int, channels: int, size: int = 3, stride: int = 1):
        edge = size // 2
        super().__init__(in_channels, channels, (1, size, size), (1, stride, stride), (0, edge, edge), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        edge = self.kernel_size[1] // 2
        frames = F.conv2d(_frames(x), self.weight.squeeze(2), stride=self.stride[1:], padding=(edge, edge))
        return _video(frames, like=x)


class TimeConv(nn.Conv3d):
    """A 3 x 1 x 1 convolution along time, a zero before and after: [B, C, T, H, W] -> [B, channels, T', H, W]."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1):
        super().__init__(in_channels, channels, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        lines = F.conv2d(x.flatten(3), self.weight.flatten(3), stride=(self.stride[0], 1), padding=(1, 0))
        return lines.unflatten(3, x.shape[3:])


class SpaceMaxPool(nn.Module):
    """The largest value of 3 x 3 points of a frame, every second row and column: [B, C, T, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return _video(F.max_pool2d(_frames(x), 3, stride=2, padding=1), like=x)


def _frames(video: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B T, C, H, W], without a copy if channels-last."""
    return video.transpose(1, 2).flatten(0, 1)


def _video(frames: Tensor, like: Tensor) -> Tensor:
    """[B T, C, H, W] -> [B, C, T, H, W] with the B and T of `like`."""
    return frames.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
