"""Sums and rows over all processes that share a batch, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from training.parallel.share import current_share


def summed(x: Tensor) -> Tensor:
    """The sum of `x` over the processes; `x` itself if this process has the whole batch."""
    if current_share() is None:
        return x
    total: Tensor = _Sum.apply(x)
    return total


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, in the order in which one process would have them."""
    share = current_share()
    if share is None:
        return x
    blocks = x.reshape(-1, share.stop - share.start, *x.shape[1:])
    before = blocks.new_zeros(len(blocks), share.start, *x.shape[1:])
    after = blocks.new_zeros(len(blocks), share.total - share.stop, *x.shape[1:])
    return summed(torch.cat([before, blocks, after], dim=1)).flatten(0, 1)


def mean_of_rows(x: Tensor) -> Tensor:
    """The mean over the rows of all processes."""
    return x.mean(dim=0) if current_share() is None else summed(x.sum(dim=0)) / rows_of_all(len(x))


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `(C,)` of each channel of `x` `(B, C, ...)` over the rows of all processes."""
    values = x.reshape(*x.shape[:2], -1)
    mean = mean_of_rows(values.mean(dim=2))
    return mean, mean_of_rows(torch.square(values - mean[:, None]).mean(dim=2))


def rows_of_all(rows: int) -> int:
    """Number of rows that all processes have together."""
    share = current_share()
    return rows if share is None else share.rows_of_all(rows)


@torch.no_grad()
def rows_at(x: Tensor, positions: Tensor, each: int) -> Tensor:
    """The rows at given positions `(P,)` among those of all processes `(P, D)`, without a gradient.

    Args:
        x: rows `(m n each, D)`.
        each: number of neighbouring rows of one row of the batch, such as the places of a map.
    """
    share = current_share()
    if share is None:
        return x[positions]
    own, every = (share.stop - share.start) * each, share.total * each
    place = positions % every - share.start * each
    is_own = (place >= 0) & (place < own)
    rows = x[torch.where(is_own, positions // every * own + place, 0)]
    return summed(torch.where(is_own[:, None], rows, 0.0))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(x: Tensor) -> Tensor:
    total = x.contiguous().clone()
    dist.all_reduce(total)
    return total
