"""Blocks of convolution, batch normalisation and activation, and the folding of normalisation into convolutions.

Ioffe, Szegedy: Batch Normalization, 2015, https://arxiv.org/abs/1502.03167. In eval mode it is an affine map per
channel, which can be folded into the convolution before it: weight' = weight g / sqrt(v + e) and
bias' = b + (bias - m) g / sqrt(v + e), with m, v the running mean and variance, g, b the learnt gain and shift.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.parallel.norm import BatchNorm2d


class Block(nn.Module):
    """A convolution, optional batch normalisation, and SiLU."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, normalise: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = BatchNorm2d(convolution.out_channels) if normalise else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.convolution(x)
        if self.norm is not None:
            h = self.norm(h)
        return nn.functional.silu(h)


class Residual(nn.Module):
    """h + Block(h), with the side and width unchanged."""

    def __init__(self, channels: int, normalise: bool, convolution: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.block = Block(convolution(channels, channels, 3, padding=1, bias=not normalise), normalise)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x + self.block(x)
        return h


@torch.no_grad()
def fold_blocks(source: nn.Module, target: nn.Module) -> None:
    """Copy weights into `target`, the same model as `source` without normalisation, which is folded in."""
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
    transposed = isinstance(convolution, nn.ConvTranspose2d)  # output channels are the second axis of its weight
    weight = convolution.weight * (gain[None, :, None, None] if transposed else gain[:, None, None, None])
    return weight, norm.bias + (bias - mean) * gain
