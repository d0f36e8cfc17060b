"""A flow whose steps transform each value given all values before it in an order, with a triangular Jacobian.

A step maps x to u by u_i = x_i exp(s_i(x_<i)) + t_i(x_<i), with s and t from one masked network, so that u and the
log-determinant sum_i s_i take one pass; the inverse takes one pass per value. Read from u to x it is the inverse of the
inverse autoregressive flow of Kingma et al.: Improved Variational Inference with Inverse Autoregressive Flow, 2016,
https://arxiv.org/abs/1606.04934, equations 9 and 10; masks as in Germain et al.: MADE, 2015,
https://arxiv.org/abs/1502.03509. Every second step has the reverse order.

Differs from the paper: s is g tanh(.) with a learnt g per value, instead of the logarithm of a sigmoid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from training.layers.flow import START, Bijection, Transformed
from training.layers.masked import MaskedLinear, spread_numbers


class AutoregressiveStep(Bijection):
    """One step on vectors `(B, D)`.

    Args:
        dim: D.
        hidden: units of the hidden layers of the masked network, at least one layer.
        number: number of the step; odd ones have the reverse order.
    """

    def __init__(self, dim: int, hidden: Sequence[int], number: int = 0) -> None:
        super().__init__()
        positions = torch.arange(dim, 0, -1) if number % 2 else torch.arange(1, dim + 1)
        self.order = torch.argsort(positions).tolist()
        generator, before = torch.Generator().manual_seed(number), positions
        layers: list[MaskedLinear] = []
        for inputs, units in pairwise((dim, *hidden)):
            numbers = spread_numbers(units, dim, generator)
            layers.append(MaskedLinear(inputs, units))
            layers[-1].mask.copy_(numbers[:, None] >= before[None, :])
            before = numbers
        self.layers: Any = nn.ModuleList(layers)
        self.out = MaskedLinear(hidden[-1], 2 * dim)
        self.out.mask.copy_(positions.repeat(2)[:, None] > before[None, :])
        nn.init.normal_(self.out.weight, std=START)
        nn.init.zeros_(self.out.bias)
        self.bound = nn.Parameter(torch.ones(dim))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s and t `(B, D)`, of which value i depends on the values before it."""
        h = x
        for layer in self.layers:
            h = relu(layer(h))
        scale, shift = self.out(h).to(x.dtype).chunk(2, dim=1)
        return self.bound * torch.tanh(scale), shift

    def forward(self, x: Tensor) -> Transformed:
        log_scale, shift = self.scale_and_shift(x)
        return Transformed(x * torch.exp(log_scale) + shift, log_scale.sum(dim=1))

    @torch.no_grad()
    def inverse(self, z: Tensor) -> Tensor:
        x = torch.zeros_like(z)
        for place in self.order:
            log_scale, shift = self.scale_and_shift(x)
            x[:, place] = (z[:, place] - shift[:, place]) * torch.exp(-log_scale[:, place])
        return x
