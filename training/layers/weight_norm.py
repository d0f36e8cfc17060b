"""Weight normalisation, started from the first batch.

Salimans, Kingma: Weight Normalization: A Simple Reparameterization to Accelerate Training of Deep Neural Networks,
2016, https://arxiv.org/abs/1602.07868: w = g v / ||v|| for each output (equation 2); the first batch in training mode
sets g and b so that the outputs have mean 0 and a given standard deviation (section 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from training.parallel.sums import channel_moments

SMALLEST = 1e-6  # standard deviation of outputs that are divided by it


def normalise_weight(conv: nn.Conv2d | nn.ConvTranspose2d, scale: float = 1.0) -> None:
    """Give a convolution with a bias a normalised weight.

    Args:
        scale: standard deviation of each of its outputs on the first batch in training mode.
    """
    weight_norm(conv, dim=1 if isinstance(conv, nn.ConvTranspose2d) else 0)
    conv.register_buffer("started", torch.tensor(False))
    conv.register_forward_hook(_Start(scale))


class _Start:
    """A forward hook that sets gain and bias from the first batch in training mode, and then computes its outputs."""

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.is_done = False  # spares reading the buffer from a GPU at every step

    def __call__(self, conv: Any, inputs: Any, outputs: Tensor) -> Tensor | None:
        if self.is_done or not conv.training:
            return None
        self.is_done = True
        if bool(conv.started):
            return None
        self._start(conv, outputs)
        again: Tensor = conv.forward(*inputs)
        return again

    @torch.no_grad()
    def _start(self, conv: Any, outputs: Tensor) -> None:
        mean, variance = channel_moments(outputs.float())
        factor = self.scale / variance.sqrt().clamp(min=SMALLEST)
        gain = conv.parametrizations.weight.original0
        gain.mul_(factor.reshape([-1 if side > 1 else 1 for side in gain.shape]))
        conv.bias.copy_((conv.bias - mean) * factor)
        conv.started.fill_(True)
