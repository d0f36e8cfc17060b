"""Layers of the gated PixelCNN, shared by the families and priors that draw images or codes in raster order.

van den Oord et al.: Conditional Image Generation with PixelCNN Decoders, 2016, https://arxiv.org/abs/1606.05328; see
`training.models.pixel_cnn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from training.layers.causal import CausalConv2d, Scope, channel_groups, channel_mask, last_tap_mask
from training.layers.raster import RasterOutput

GAIN = 2.0  # compensates for the gates, which shrink the signal from layer to layer


class GatedLayer(nn.Module):
    """One layer of both streams; the first layer of a network reads the image and excludes the pixel itself.

    Args:
        inputs: planes of the image for the first layer, else None.
        kernel: side of the convolution.
        groups: number of channels that are predicted one after the other, of which the first layer reads those before
            by mask A; 0 predicts the pixel as a whole, of which the first layer reads nothing.
        condition: features of the condition.
    """

    def __init__(
        self, inputs: int | None, width: int, kernel: int, dilation: int, *, groups: int, condition: int
    ) -> None:
        super().__init__()
        self.is_first = inputs is not None
        half, seen = kernel // 2, width if inputs is None else inputs
        reach = half * dilation
        # The first vertical convolution ends above the row, so the later ones may include their own row.
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
        """The mask at the pixel itself."""
        if not self.is_first:
            return twice(own_channels(width, width, groups))
        values = own_channels(width, seen - 1, groups, includes_own=False)
        return twice(torch.cat([values, torch.zeros(width, 1, 1, 1)], dim=1))  # without the plane of ones

    def down(self, at: Scope, v: Tensor | None, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        """The vertical stream after the layer, and its contribution to the horizontal stream."""
        wide: Tensor = self.vertical(at, v)
        if condition is not None:
            wide = wide + at.crop(condition[:, : wide.shape[1]])
        return gate(wide), self.link(at, wide)

    def along(self, at: Scope, h: Tensor | None, given: Tensor, condition: Tensor | None) -> Tensor:
        """The horizontal stream after the layer."""
        wide: Tensor = self.horizontal(at, h) + at.column(given)
        if condition is not None:
            wide = wide + at.crop(condition[:, wide.shape[1] :])
        out: Tensor = self.out(at, gate(wide))
        return out if h is None else h + out


class GatedNetwork(nn.Module):
    """Gated layers and a head; see `training.layers.raster.RasterNetwork`.

    Args:
        inputs: planes of the image; the last one is a plane of ones.
        parameters: outputs per pixel.
        groups: number of channels that are predicted one after the other; 0 predicts the pixel as a whole.
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

    def vertical(self, at: Scope, conditions: list[Tensor]) -> list[Tensor]:
        v, given = None, []
        for number, layer in enumerate(self.layers):
            v, out = layer.down(at, v, conditions[number] if conditions else None)
            given.append(out)
        return given

    def horizontal(self, at: Scope, vertical: list[Tensor], conditions: list[Tensor]) -> RasterOutput:
        h = None
        for number, (layer, given) in enumerate(zip(self.layers, vertical, strict=True)):
            h = layer.along(at, h, given, conditions[number] if conditions else None)
        output: RasterOutput = self.head(at, h)
        return output


class Head(nn.Module):
    """Features to distribution parameters: ReLU and 1 x 1 convolution, twice."""

    def __init__(self, width: int, middle: int, parameters: int, groups: int) -> None:
        super().__init__()
        self.middle = CausalConv2d(width, middle, (1, 1), mask=own_channels(middle, width, groups))
        self.out = CausalConv2d(middle, parameters, (1, 1), mask=own_channels(parameters, middle, groups))

    def forward(self, at: Scope, h: Tensor) -> RasterOutput:
        return RasterOutput(h, self.out(at, relu(self.middle(at, relu(h)))))


def first_convolution(inputs: int, width: int, kernel: int, groups: int) -> CausalConv2d:
    """A square convolution of mask A over an image, whose last plane, of ones, is excluded at the pixel itself."""
    half = kernel // 2
    values = own_channels(width, inputs - 1, groups, includes_own=False)
    mask = last_tap_mask((half + 1, kernel), torch.cat([values, torch.zeros(width, 1, 1, 1)], dim=1))
    return CausalConv2d(inputs, width, (half + 1, kernel), above=half, before=half, mask=mask)


def gate(wide: Tensor) -> Tensor:
    """tanh of the first half of the features times sigmoid of the second half."""
    values, gates = wide.chunk(2, dim=1)
    return torch.tanh(values) * torch.sigmoid(gates)


def own_channels(outputs: int, inputs: int, groups: int, *, includes_own: bool = True) -> Tensor:
    """The mask at the pixel itself: `channel_mask`, or all or nothing for pixels that are predicted as a whole."""
    if groups == 0:
        return torch.full((outputs, inputs, 1, 1), float(includes_own))
    return channel_mask(channel_groups(outputs, groups), channel_groups(inputs, groups), includes_own=includes_own)


def twice(mask: Tensor) -> Tensor:
    """The same mask for values and gates."""
    return torch.cat([mask, mask])
