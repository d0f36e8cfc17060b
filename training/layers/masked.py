"""Linear layers with masks, from which fully connected networks with a given dependency between values are built.

Used by `training.models.made`, by the flow of `training.layers.autoregressive_flow` and by `training.models.delta_vae`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class MaskedLinear(nn.Linear):
    """A linear layer that uses the weights where a mask `(outputs, inputs)` is true."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs, dtype=torch.bool), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)


def spread_numbers(units: int, values: int, generator: torch.Generator) -> Tensor:
    """Numbers m(k) of hidden units `(units,)`, from 1 to D - 1, in equal frequency and random order."""
    numbers: Tensor = torch.arange(units) % max(values - 1, 1) + 1
    if units < values - 1:  # fewer units than numbers: take evenly spaced numbers
        numbers = torch.linspace(1, values - 1, units).round().long()
    return numbers[torch.randperm(units, generator=generator)]
