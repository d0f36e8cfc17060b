"""PixelCNN: an image's pixels in raster order, each given those before it by masked convolutions.

* `gated`: van den Oord et al.: Conditional Image Generation with PixelCNN Decoders, 2016,
  https://arxiv.org/abs/1606.05328. Two streams, equation 2 at each layer: y = tanh(W_f * x) . sigmoid(W_g * x), a
  vertical one over the rows above, and a horizontal one over the row so far, to which the vertical one is added by a
  1 x 1 convolution (figure 2), so that no pixel before is hidden. Conditions h join as in equations 3 and 4.
* `plain`: van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016,
  https://arxiv.org/abs/1601.06759, sections 3.3, 3.4 and table 1: one masked convolution of mask A, residual blocks of
  mask B (1 x 1, 3 x 3, 1 x 1), two 1 x 1 layers. Pixels up and to the right stay hidden from it: its blind spot.

With three channels and a likelihood that takes them one after the other, features come in three parts, and masks let
those of green see red, and those of blue both (section 3.4).

Differs from the papers: the image has a plane of ones besides, which tells black from what is beyond its edge; layers
may look at pixels `dilations` apart, which widens what is seen without more of them; a smaller head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from training.layers.autoregressive import RasterConfig, RasterModel
from training.layers.causal import CausalConv2d, Place, channel_groups, channel_mask, last_tap_mask
from training.layers.checks import check_at_least, check_choice
from training.layers.distributions import build_distribution
from training.layers.raster import Seen

Architecture = Literal["gated", "plain"]
GAIN = 2.0  # a gate makes its inputs so much smaller that a stack of layers would start without a signal


@dataclass(frozen=True, kw_only=True)
class PixelCnnConfig(RasterConfig):
    """Configuration of `PixelCnn`; see also `RasterConfig`.

    Args:
        architecture: `gated` or `plain`.
        kernel: odd side of the first convolution.
        dilations: of the layers after the first, one for each; their kernels have a side of 3.
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
            raise ValueError(f"dilations must be positive numbers, one for each layer, not {self.dilations}")


class PixelCnn(RasterModel):
    """A PixelCNN, gated or plain.

    Example:
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


class GatedLayer(nn.Module):
    """One layer of both streams; the first of a network sees the image, and nothing of the pixel itself.

    Args:
        inputs: planes of the image for the first layer, else None.
        kernel: side of the convolution.
        groups: channels of a pixel that are told apart, 0 where the pixel is one; the first layer then sees nothing of
            it, or by mask A the channels before.
        condition: features of the condition.
    """

    def __init__(
        self, inputs: int | None, width: int, kernel: int, dilation: int, *, groups: int, condition: int
    ) -> None:
        super().__init__()
        self.is_first = inputs is not None
        half, seen = kernel // 2, width if inputs is None else inputs
        reach = half * dilation
        # The first vertical convolution stops above the row; all others then may look along it.
        rows, above = (half, half) if self.is_first else (half + 1, reach)
        self.vertical = CausalConv2d(
            seen, 2 * width, (rows, kernel), above=above, before=reach, dilation=dilation, gain=GAIN
        )
        self.horizontal = CausalConv2d(
            seen, 2 * width, (1, half + 1), before=reach, dilation=dilation, gain=GAIN,
            mask=last_tap_mask((1, half + 1), self._own(seen, width, groups)),
        )  # fmt: skip
        self.link = CausalConv2d(2 * width, 2 * width, (1, 1))
        self.out = CausalConv2d(width, width, (1, 1), mask=own_channels(width, width, groups))
        self.condition = nn.Conv2d(condition, 4 * width, 1, bias=False) if condition else None

    def _own(self, seen: int, width: int, groups: int) -> Tensor:
        """What the features see at the pixel itself."""
        if not self.is_first:
            return twice(own_channels(width, width, groups))
        values = own_channels(width, seen - 1, groups, includes_own=False)
        return twice(torch.cat([values, torch.zeros(width, 1, 1, 1)], dim=1))  # the plane of ones says nothing here

    def down(self, at: Place, v: Tensor | None, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stream after the layer, and what of it the horizontal one is given."""
        wide: Tensor = self.vertical(at, v)
        if condition is not None:
            wide = wide + at.crop(condition[:, : wide.shape[1]])
        return gate(wide), self.link(at, wide)

    def along(self, at: Place, h: Tensor | None, given: Tensor, condition: Tensor | None) -> Tensor:
        """The horizontal stream after the layer."""
        wide: Tensor = self.horizontal(at, h) + at.column(given)
        if condition is not None:
            wide = wide + at.crop(condition[:, wide.shape[1] :])
        out: Tensor = self.out(at, gate(wide))
        return out if h is None else h + out


class GatedNetwork(nn.Module):
    """Gated layers and a head; see `training.layers.raster.RasterNetwork`.

    Args:
        inputs: planes of the image, the last of them ones.
        parameters: numbers at each pixel.
        groups: channels of a pixel that come one after the other; 0 where the pixel is one.
    """

    follows_cursor = True

    def __init__(
        self, inputs: int, parameters: int, width: int, kernel: int, dilations: Sequence[int], head: int, *,
        groups: int, condition: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        first = GatedLayer(inputs, width, kernel, 1, groups=groups, condition=condition)
        more = (GatedLayer(None, width, 3, each, groups=groups, condition=condition) for each in dilations)
        self.layers: Any = nn.ModuleList([first, *more])
        self.head = Head(width, head, parameters, groups)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        return [] if condition is None else [layer.condition(condition) for layer in self.layers]

    def vertical(self, at: Place, conditions: list[Tensor]) -> list[Tensor]:
        v, given = None, []
        for place, layer in enumerate(self.layers):
            v, out = layer.down(at, v, conditions[place] if conditions else None)
            given.append(out)
        return given

    def horizontal(self, at: Place, vertical: list[Tensor], conditions: list[Tensor]) -> Seen:
        h = None
        for place, (layer, given) in enumerate(zip(self.layers, vertical, strict=True)):
            h = layer.along(at, h, given, conditions[place] if conditions else None)
        seen: Seen = self.head(at, h)
        return seen


class PlainNetwork(nn.Module):
    """A masked convolution, residual blocks and a head; has a blind spot. Arguments as of `GatedNetwork`."""

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

    def vertical(self, at: Place, conditions: list[Tensor]) -> None:
        return None

    def horizontal(self, at: Place, vertical: None, conditions: list[Tensor]) -> Seen:
        h = self.first(at)
        for place, block in enumerate(self.blocks):
            h = block(at, h + at.crop(conditions[place]) if conditions else h)
        seen: Seen = self.head(at, h + at.crop(conditions[-1]) if conditions else h)
        return seen


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

    def forward(self, at: Place, h: Tensor) -> Tensor:
        out: Tensor = h + self.widen(at, relu(self.middle(at, relu(self.narrow(at, relu(h))))))
        return out


class Head(nn.Module):
    """ReLU and 1 x 1 convolution, twice: from features to the parameters of a distribution."""

    def __init__(self, width: int, middle: int, parameters: int, groups: int) -> None:
        super().__init__()
        self.middle = CausalConv2d(width, middle, (1, 1), mask=own_channels(middle, width, groups))
        self.out = CausalConv2d(middle, parameters, (1, 1), mask=own_channels(parameters, middle, groups))

    def forward(self, at: Place, h: Tensor) -> Seen:
        return Seen(h, self.out(at, relu(self.middle(at, relu(h)))))


def first_convolution(inputs: int, width: int, kernel: int, groups: int) -> CausalConv2d:
    """A square convolution of mask A over an image, whose last plane is ones and says nothing of the pixel itself."""
    half = kernel // 2
    values = own_channels(width, inputs - 1, groups, includes_own=False)
    mask = last_tap_mask((half + 1, kernel), torch.cat([values, torch.zeros(width, 1, 1, 1)], dim=1))
    return CausalConv2d(inputs, width, (half + 1, kernel), above=half, before=half, mask=mask)


def gate(wide: Tensor) -> Tensor:
    """tanh of the first half of the features times sigmoid of the second."""
    values, gates = wide.chunk(2, dim=1)
    return torch.tanh(values) * torch.sigmoid(gates)


def own_channels(outputs: int, inputs: int, groups: int, *, includes_own: bool = True) -> Tensor:
    """The mask at the pixel itself, by `channel_mask`; where it is one, all of it or nothing."""
    if groups == 0:
        return torch.full((outputs, inputs, 1, 1), float(includes_own))
    return channel_mask(channel_groups(outputs, groups), channel_groups(inputs, groups), includes_own=includes_own)


def twice(mask: Tensor) -> Tensor:
    """For values and gates alike."""
    return torch.cat([mask, mask])
