"""Convolution, batch normalisation and activation, and the folding of the second into the first.

Ioffe, Szegedy: Batch Normalization, 2015, https://arxiv.org/abs/1502.03167. In use (not in training) it is an affine
map per channel, so the convolution before it can take it over: weight' = weight g / sqrt(v + e) and
bias' = b + (bias - m) g / sqrt(v + e), with m, v the running mean and variance, g, b the learnt gain and shift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A convolution, optionally normalised over the batch, and SiLU."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, normalise: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(convolution.out_channels) if normalise else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x)
        if self.norm is not None:
            h = self.norm(h)
        return nn.functional.silu(h)


class Residual(nn.Module):
    """h + Block(h), at the same side and width."""

    def __init__(self, channels: int, normalise: bool) -> None:
        super().__init__()
        self.block = Block(nn.Conv2d(channels, channels, 3, padding=1, bias=not normalise), normalise)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.block(x)
        return h


@torch.no_grad()
def fold_blocks(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of `source` into `target`, the same model but for normalisation, which is folded away."""
    state = source.state_dict()
    for name, block in source.named_modules():
        if isinstance(block, Block) and block.norm is not None:
            for key in block.norm.state_dict():
                del state[f"{name}.norm.{key}"]
            weight, bias = _folded(block.convolution, block.norm)
            state[f"{name}.convolution.weight"], state[f"{name}.convolution.bias"] = weight, bias
    target.load_state_dict(state)


def _folded(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    statistics = norm.state_dict()
    mean, variance = statistics["running_mean"], statistics["running_var"]
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = torch.zeros_like(mean) if convolution.bias is None else convolution.bias
    transposed = isinstance(convolution, nn.ConvTranspose2d)  # its outputs are the weight's second axis
    weight = convolution.weight * (gain[None, :, None, None] if transposed else gain[:, None, None, None])
    return weight, norm.bias + (bias - mean) * gain
