"""Batch normalisation with the statistics of the global batch, also on CPU ranks, where torch's refuses to work."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from avssl.training.distributed import ProcessGroup


class CrossRankBatchNorm(_BatchNorm):
    """Batch norm over the parts of all ranks, weighted by their true sizes; a rank's part may be empty.

    Mean first, then the mean square of what is left: two small exchanges, no cancellation. Equal to plain batch norm
    of the whole batch in one process up to rounding, forward and backward.
    """

    ranks: ProcessGroup

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        dims = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision would cancel
        count = self.ranks.sum(torch.tensor(float(x.numel() // x.shape[1]), device=x.device))
        mean = self.ranks.sum_with_gradient(wide.sum(dims)) / count
        centred = wide - mean.view(shape)
        variance = self.ranks.sum_with_gradient(centred.square().sum(dims)) / count
        with torch.no_grad():
            self._follow(mean, variance * (count / (count - 1).clamp(min=1)))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, x: Tensor) -> None:  # any number of dimensions will do
        return


def synchronise_batch_norm(model: nn.Module, ranks: ProcessGroup) -> nn.Module:
    """Replace every batch norm of `model` by one over all ranks: torch's own on GPUs, ours on CPUs.

    Parameters, buffers and their names stay. With one process nothing changes.
    """
    if ranks.size == 1:
        return model
    if ranks.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, CrossRankBatchNorm):
            setattr(model, name, _converted(child, ranks))
        else:
            synchronise_batch_norm(child, ranks)
    return model


def _converted(norm: _BatchNorm, ranks: ProcessGroup) -> CrossRankBatchNorm:
    new = CrossRankBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    new.weight, new.bias, new.training, new.ranks = norm.weight, norm.bias, norm.training, ranks
    new.running_mean, new.running_var, new.num_batches_tracked = (
        norm.running_mean,
        norm.running_var,
        norm.num_batches_tracked,
    )
    return new
