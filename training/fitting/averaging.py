"""Exponential moving average of a model's weights, which ships if the recipe sets `ema`.

    w' <- d w' + (1 - d) w,   d = min(decay, (1 + n) / (10 + n)) at step n

The decay rises to its value over the first steps, as in TensorFlow's ExponentialMovingAverage (`num_updates`), so that
a short run does not ship its initial weights. Floating-point buffers are averaged too, as the statistics of batch
normalisation belong to the weights; other buffers are copied.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Updates the average after every step.

    Args:
        decay: in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=moving_average(decay))


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An `avg_fn` for `torch.optim.swa_utils.AveragedModel`."""

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not current.is_floating_point():
            return current
        return torch.lerp(averaged, current, max(1.0 - decay, 9.0 / (10.0 + float(count))))

    return average
