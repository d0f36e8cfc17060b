"""PixelCNN: the pixels of an image in raster order, each predicted from those before it by masked convolutions.

* `gated`: van den Oord et al.: Conditional Image Generation with PixelCNN Decoders, 2016,
  https://arxiv.org/abs/1606.05328 (`training.layers.gated`). Two streams with equation 2 at each layer,
  y = tanh(W_f * x) . sigmoid(W_g * x): a vertical one over the rows above, and a horizontal one over the row so far, to
  which the vertical one is added by a 1 x 1 convolution (figure 2). There is no blind spot. Conditions h are added as
  in equations 3 and 4.
* `plain`: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016,
  https://arxiv.org/abs/1601.06759, sections 3.3, 3.4 and table 1: one masked convolution of mask A, residual blocks of
  mask B (1 x 1, 3 x 3, 1 x 1), two 1 x 1 layers. It cannot use pixels above and to the right: its blind spot.

With three channels and a likelihood that predicts them one after the other, features are divided into three parts:
masks let the green part depend on red, and the blue part on both (section 3.4).

Differs from the papers: an additional plane of ones distinguishes black pixels from the padding; layers may be dilated
(`dilations`), which widens the receptive field without more layers; a smaller head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import relu

from training.layers.autoregressive import RasterConfig, RasterModel
from training.layers.causal import CausalConv2d, Scope, last_tap_mask
from training.layers.checks import check_at_least, check_choice
from training.layers.distributions import build_distribution
from training.layers.gated import GatedNetwork, Head, first_convolution, own_channels
from training.layers.raster import RasterOutput

Architecture = Literal["gated", "plain"]


@dataclass(frozen=True, kw_only=True)
class PixelCnnConfig(RasterConfig):
    """Configuration of `PixelCnn`; see also `RasterConfig`.

    Args:
        architecture: `gated` or `plain`.
        kernel: odd side of the first convolution.
        dilations: dilation of each layer after the first, which have 3 x 3 kernels.
        head: features before the last layer.
    """

    architecture: Architecture = "gated"
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    head: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))  # JSON and YAML give lists
        super().__post_init__()
        check_choice("architecture", self.architecture, get_args(Architecture))
        check_at_least("head", self.head, self.channels)
        if self.kernel % 2 == 0 or not 3 <= self.kernel <= self.size:
            raise ValueError(f"kernel must be odd and between 3 and size ({self.size}), not {self.kernel}")
        if self.dilations and min(self.dilations) < 1:
            raise ValueError(f"dilations must be positive numbers, one per layer, not {self.dilations}")


class PixelCnn(RasterModel):
    """A PixelCNN, gated or plain.

    Example:
        >>> import torch
        >>> model = PixelCnn(PixelCnnConfig(size=8, width=6, kernel=3, dilations=(1,), head=6, pool=2))
        >>> model.log_likelihood(torch.rand(2, 3, 8, 8)).nats.shape
        torch.Size([2])
    """

    def __init__(self, config: PixelCnnConfig) -> None:
        distribution = build_distribution(config.likelihood, config.channels, config.mixtures)
        groups = config.channels if distribution.grouped else 0
        build = GatedNetwork if config.architecture == "gated" else PlainNetwork
        network = build(
            config.channels + 1, distribution.parameters, config.width, config.kernel, config.dilations, config.head,
            groups=groups, condition=config.classes or 0,
        )  # fmt: skip
        super().__init__(config, network)


class PlainNetwork(nn.Module):
    """A masked convolution, residual blocks and a head; has a blind spot. Arguments as for `GatedNetwork`."""

    follows_cursor = True

    def __init__(
        self, inputs: int, parameters: int, width: int, kernel: int, dilations: Sequence[int], head: int, *,
        groups: int, condition: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = first_convolution(inputs, width, kernel, groups)
        self.blocks = nn.ModuleList(ResidualBlock(width, dilation, groups) for dilation in dilations)
        count = 1 + len(self.blocks)
        self.projections = nn.ModuleList(
            nn.Conv2d(condition, width, 1, bias=False) for _ in range(count if condition else 0)
        )
        self.head = Head(width, head, parameters, groups)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        return [] if condition is None else [project(condition) for project in self.projections]

    def vertical(self, at: Scope, conditions: list[Tensor]) -> None:
        return None

    def horizontal(self, at: Scope, vertical: None, conditions: list[Tensor]) -> RasterOutput:
        h = self.first(at)
        for number, block in enumerate(self.blocks):
            h = block(at, h + at.crop(conditions[number]) if conditions else h)
        output: RasterOutput = self.head(at, h + at.crop(conditions[-1]) if conditions else h)
        return output


class ResidualBlock(nn.Module):
    """h + 1 x 1 (ReLU 3 x 3 (ReLU 1 x 1 (ReLU h))), the middle half as wide; van den Oord et al. 2016, figure 5."""

    def __init__(self, width: int, dilation: int, groups: int) -> None:
        super().__init__()
        half = max(width // 2, groups, 1)
        own = own_channels(half, half, groups)
        self.narrow = CausalConv2d(width, half, (1, 1), mask=own_channels(half, width, groups))
        self.middle = CausalConv2d(
            half, half, (2, 3), above=dilation, before=dilation, dilation=dilation, mask=last_tap_mask((2, 3), own)
        )
        self.widen = CausalConv2d(half, width, (1, 1), mask=own_channels(width, half, groups))

    def forward(self, at: Scope, h: Tensor) -> Tensor:
        out: Tensor = h + self.widen(at, relu(self.middle(at, relu(self.narrow(at, relu(h))))))
        return out
