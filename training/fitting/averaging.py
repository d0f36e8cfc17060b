"""Exponential moving average of a model's weights, which ships if the recipe sets `ema`.

    w' <- d w' + (1 - d) w,   d = min(decay, (1 + n) / (10 + n)) at step n

The decay rises to its value over the first steps, as in TensorFlow's ExponentialMovingAverage (`num_updates`), so that
a short run does not ship its initial weights. Floating-point buffers are averaged too, as the statistics of batch
normalisation belong to the weights; other buffers are copied.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


class MovingAverage(WeightAveraging):
    """Updates the average after every step; the first step is copied.

    Differs from Lightning's: the average is on the device of the model, and an update reads nothing back from it.

    Args:
        decay: in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._averaged.to(pl_module.device)  # it was made before the model was moved there

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.global_step
        if done > self._latest_update_step:
            follow(self._averaged.module, pl_module, self.decay, done - 1)
            self._averaged.n_averaged += 1
            self._latest_update_step = done

    @property
    def _averaged(self) -> Any:
        return self._average_model


@torch.no_grad()
def follow(averaged: nn.Module, current: nn.Module, decay: float, steps: int) -> None:
    """Update the average of a model's parameters and buffers after step number `steps`; step 0 is copied."""
    kept = min(decay, (1.0 + steps) / (10.0 + steps)) if steps else 0.0
    theirs = chain(current.parameters(), current.buffers())
    real: tuple[list[Tensor], list[Tensor]] = ([], [])
    for mine, other in zip(chain(averaged.parameters(), averaged.buffers()), theirs, strict=True):
        if mine.is_floating_point():
            real[0].append(mine)
            real[1].append(other)
        else:
            mine.copy_(other)
    torch._foreach_lerp_(*real, 1.0 - kept)
