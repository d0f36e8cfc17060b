"""The moving average of a model's weights, which is what ships where a recipe asks for it.

    w' <- d w' + (1 - d) w,   d = min(decay, (1 + n) / (10 + n)) at step n

The decay rises to its value over the first steps, as in TensorFlow's ExponentialMovingAverage (`num_updates`), so that
a short run does not ship what it began with. Buffers of floating-point numbers are averaged too (the statistics of
batch normalisation belong to the weights); all others are copied.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Averages after every step.

    Args:
        decay: in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=moving_average(decay))


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What `torch.optim.swa_utils.AveragedModel` takes as `avg_fn`."""

    def average(averaged: Tensor, current: Tensor, count: Tensor) -> Tensor:
        if not current.is_floating_point():
            return current
        return torch.lerp(averaged, current, max(1.0 - decay, 9.0 / (10.0 + float(count))))

    return average
