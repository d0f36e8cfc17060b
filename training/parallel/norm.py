"""Batch normalisation with the statistics of a batch that several processes share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.parallel.share import current_share


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, whose statistics in training are those of the rows of all processes.

    PyTorch's `SyncBatchNorm` does the same on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        share = current_share()
        if share is None or not self.training:
            return super().forward(x)
        count = share.rows_of_all(len(x)) * x[0, 0].numel()
        normal, mean, variance = _Normalise.apply(x, self.weight, self.bias, count, self.eps)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), momentum)
        result: Tensor = normal
        return result


class _Normalise(torch.autograd.Function):
    """Ioffe, Szegedy: Batch Normalization, 2015, https://arxiv.org/abs/1502.03167, algorithm 1 and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, count: int, eps: float) -> tuple[Tensor, ...]:
        values = x.to(weight.dtype)
        mean = _over_all(values.sum(dim=(0, 2, 3))) / count
        centred = values - _maps(mean)
        variance = _over_all(torch.square(centred).sum(dim=(0, 2, 3))) / count
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance)
        return (centred * _maps(inverse * weight) + _maps(bias)).to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)
        normal = (x.to(weight.dtype) - _maps(mean)) * _maps(inverse)
        of_bias = gradient.sum(dim=(0, 2, 3))
        of_weight = (gradient * normal).sum(dim=(0, 2, 3))
        shift, slope = _over_all(torch.stack([of_bias, of_weight])) / ctx.count
        of_x = _maps(weight * inverse) * (gradient - _maps(shift) - normal * _maps(slope))
        return of_x.to(x.dtype), of_weight, of_bias, None, None


def _over_all(x: Tensor) -> Tensor:
    dist.all_reduce(x)
    return x


def _maps(x: Tensor) -> Tensor:
    return x[:, None, None]
