"""Causal convolutions in raster order, evaluated on a whole image at once, along one row, or at one pixel.

A network of `CausalConv2d` is written once; a `Scope` decides which part of the image it is evaluated on. `Everywhere`
is one parallel pass, as in training. A `Cursor` is at a row or a pixel of an image that is being generated, and caches
the inputs of every convolution, so that the cost of the next pixel does not depend on the size of the image
(Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models, 2017, https://arxiv.org/abs/1704.06001).

Networks of two streams (van den Oord et al. 2016, Salimans et al. 2017) evaluate the vertical stream, which only
depends on the rows above, once per row, and the horizontal stream at every pixel. On a grid of half the side, their
results are reused at odd rows and columns (`halved`).

Differs from the paper: caches whole rows instead of queues, which is simpler and no slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

LEAST_MARGIN = 4  # padding around tiny images, whose first convolution may reach beyond their side


class CausalConv2d(nn.Conv2d):
    """A convolution padded for raster order, with an optional mask.

    The output at (i, j) depends on `kernel` rows from i - `above` and columns from j - `before`, `dilation` apart. The
    side is kept, or halved with a stride of 2.

    Args:
        kernel: rows and columns.
        above: rows of padding at the top; more than the extent of the kernel shifts it, so that it ends above row i.
        before: columns of padding on the left; likewise.
        mask: 1 for weights in use, 0 for the others; broadcasts over the weight.
        gain: initial standard deviation of the outputs for inputs with a mean square of 1.
    """

    mask: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], *, above: int = 0, before: int = 0,
        dilation: int = 1, stride: int = 1, mask: Tensor | None = None, gain: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)
        rows, columns = ((side - 1) * dilation for side in kernel)
        self.above, self.below = above, rows - above
        self.before, self.after = before, columns - before
        self.register_buffer("mask", mask, persistent=False)
        seen = self.weight[0].numel() * (1.0 if mask is None else float(mask.expand_as(self.weight).mean()))
        nn.init.normal_(self.weight, std=gain * max(seen, 1.0) ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def masked_weight(self) -> Tensor:
        return self.weight if self.mask is None else self.weight * self.mask

    def forward(self, at: Any, x: Tensor | None = None) -> Tensor:
        """Outputs in a scope, of inputs `(B, C, h, w)` there; None takes the image as the input."""
        out: Tensor = at.convolve(self, x)
        return out


class Scope(Protocol):
    """The part of an image that a network is evaluated on: everything, one row, or one pixel."""

    def convolve(self, conv: CausalConv2d, x: Tensor | None) -> Tensor:
        """Outputs of a convolution in this scope; its inputs `(B, C, h, w)` in this scope, or None for the image."""
        ...

    def crop(self, x: Tensor) -> Tensor:
        """This scope's part of a map of the whole image; a map of one pixel is broadcast."""
        ...

    def column(self, row: Tensor) -> Tensor:
        """This scope's part of a map of the current row."""
        ...

    def halved(
        self, conv: CausalConv2d, x: Tensor, inside: Callable[[Tensor, Scope], tuple[Tensor, Any]]
    ) -> tuple[Tensor, Any]:
        """The results of `inside`, which is evaluated on the grid of half the side.

        Args:
            conv: convolution of stride 2, whose outputs are the input of `inside`.
            inside: returns a map at this grid's resolution, and any other result.
        """
        ...


class Everywhere:
    """The scope of all pixels of images `(B, C, H, W)`."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def convolve(self, conv: CausalConv2d, x: Tensor | None) -> Tensor:
        padded = pad(self.image if x is None else x, (conv.before, conv.after, conv.above, conv.below))
        return conv2d(padded, conv.masked_weight, conv.bias, conv.stride, dilation=conv.dilation)

    def crop(self, x: Tensor) -> Tensor:
        return x

    def column(self, row: Tensor) -> Tensor:
        return row

    def halved(
        self, conv: CausalConv2d, x: Tensor, inside: Callable[[Tensor, Scope], tuple[Tensor, Any]]
    ) -> tuple[Tensor, Any]:
        return inside(conv(self, x), self)


class Cursor:
    """The scope of one row, or one pixel, of images `(B, C, H, W)` that are generated in raster order.

    Without gradients and for one network, as inputs are cached per convolution.
    """

    def __init__(self, image: Tensor) -> None:
        self._shape = image.shape
        self._margin = max(*image.shape[2:], LEAST_MARGIN)
        margin = self._margin
        self._image = pad(image, (margin, margin, margin, 0))
        self._given: dict[CausalConv2d, Tensor] = {}
        self._weights: dict[CausalConv2d, Tensor] = {}
        self._kept: dict[Any, Any] = {}
        self._level = 0
        self._row, self._column = 0, -1

    def write(self, row: int, column: int, pixel: Tensor) -> None:
        """Set a pixel `(B, C)` of the image."""
        self._image[:, :, self._margin + row, self._margin + column] = pixel

    def to_row(self, row: int) -> Cursor:
        """Move to a whole row."""
        self._row, self._column = row, -1
        return self

    def to_pixel(self, row: int, column: int) -> Cursor:
        """Move to one pixel."""
        self._row, self._column = row, column
        return self

    @property
    def is_on_row(self) -> bool:
        return self._column < 0

    @property
    def row(self) -> int:
        return self._row

    @property
    def first(self) -> int:
        """First column of the scope."""
        return max(self._column, 0)

    def keep(self, key: Any, like: Tensor, features: int, *, above: int = 0, before: int = 0, after: int = 0) -> Tensor:
        """A cached map `(B, features, H + above, W + before + after)` that a layer writes into, initially zeros.

        Args:
            key: identifies the map.
            like: a tensor of the same batch size and dtype.
        """
        if key not in self._kept:
            height, width = self._shape[2:]
            self._kept[key] = like.new_zeros(like.shape[0], features, height + above, width + before + after)
        kept: Tensor = self._kept[key]
        return kept

    def convolve(self, conv: CausalConv2d, x: Tensor | None) -> Tensor:
        if x is not None and conv.kernel_size == (1, 1):
            return self._apply(conv, x)
        if x is not None:
            self._remember(conv, x)
        return self._apply(conv, self._window(conv, x is None))

    def crop(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (1, 1):
            return x
        row = x[:, :, self._row : self._row + 1]
        return row if self.is_on_row else row[:, :, :, self._column : self._column + 1]

    def column(self, row: Tensor) -> Tensor:
        return row if self.is_on_row else row[:, :, :, self._column : self._column + 1]

    def halved(
        self, conv: CausalConv2d, x: Tensor, inside: Callable[[Tensor, Scope], tuple[Tensor, Any]]
    ) -> tuple[Tensor, Any]:
        self._remember(conv, x)
        row, column = self._row, self._column
        if row % 2 == 0 and (self.is_on_row or column % 2 == 0):
            shrunk = self._apply(conv, self._window(conv, False))
            self._level, self._row, self._column = self._level + 1, row // 2, column // 2 if column >= 0 else -1
            found = inside(shrunk, self)
            self._level, self._row, self._column = self._level - 1, row, column
            self._keep(conv, *found)
        wide, extra = self._kept[conv]
        return self.column(wide[:, :, row % 2 : row % 2 + 1]), extra

    def _keep(self, conv: CausalConv2d, grown: Tensor, extra: Any) -> None:
        """Cache two rows that came back from the grid of half the side, or two pixels of them."""
        if self.is_on_row:
            self._kept[conv] = grown, extra
            return
        if conv not in self._kept:
            width = self._shape[3] >> self._level
            self._kept[conv] = grown.new_zeros(*grown.shape[:3], width), extra
        self._kept[conv][0][:, :, :, self._column : self._column + 2] = grown

    def _remember(self, conv: CausalConv2d, x: Tensor) -> None:
        if conv not in self._given:
            height, width = (side >> self._level for side in self._shape[2:])
            extent = (height + conv.above, width + conv.before + max(conv.after, 0))
            self._given[conv] = x.new_zeros(x.shape[0], x.shape[1], *extent)
        first = conv.before + self.first
        self._given[conv][:, :, conv.above + self._row, first : first + x.shape[3]] = x[:, :, 0]

    def _window(self, conv: CausalConv2d, of_image: bool) -> Tensor:
        """The inputs that a convolution needs in this scope, with rows already `dilation` apart."""
        step = conv.dilation[0]
        extent = [(side - 1) * step + 1 for side in conv.kernel_size]
        source = self._image if of_image else self._given[conv]
        top = self._row + (self._margin - conv.above if of_image else 0)
        left = self.first + (self._margin - conv.before if of_image else 0)
        rows = source[:, :, top : top + extent[0] : step]
        if not self.is_on_row:
            return rows[:, :, :, left : left + extent[1] : step]
        width = self._shape[3] >> self._level
        return rows[:, :, :, left : left + width + extent[1] - 1]

    def _apply(self, conv: CausalConv2d, window: Tensor) -> Tensor:
        if conv not in self._weights:
            self._weights[conv] = conv.masked_weight
        weight = self._weights[conv]
        if self.is_on_row:
            return conv2d(window, weight, conv.bias, (1, conv.stride[1]), dilation=(1, conv.dilation[1]))
        return linear(window.flatten(1), weight.flatten(1), conv.bias)[:, :, None, None]


def channel_groups(count: int, channels: int) -> Tensor:
    """The channel that each of `count` features is assigned to `(count,)`: equal parts in channel order."""
    return torch.arange(count) * channels // count


def channel_mask(outputs: Tensor, inputs: Tensor, *, includes_own: bool) -> Tensor:
    """`(outputs, inputs, 1, 1)`: 1 where an output may depend on an input of its own pixel (van den Oord 2016, 3.4).

    Args:
        outputs: channel of each output.
        inputs: channel of each input.
        includes_own: mask B, which includes the output's own channel; mask A excludes it.
    """
    seen = inputs[None, :] <= outputs[:, None] if includes_own else inputs[None, :] < outputs[:, None]
    return seen.float()[:, :, None, None]


def last_tap_mask(kernel: tuple[int, int], own: Tensor) -> Tensor:
    """A mask that includes all rows above the last, and the last up to the pixel itself, where `own` applies.

    In kernels of several rows, the columns of the last row after the middle one are excluded.

    Args:
        own: mask at the pixel itself `(outputs, inputs, 1, 1)`.
    """
    rows, columns = kernel
    mask = torch.ones(own.shape[0], own.shape[1], rows, columns)
    middle = columns // 2 if rows > 1 else columns - 1
    mask[:, :, -1, middle] = own[:, :, 0, 0]
    mask[:, :, -1, middle + 1 :] = 0.0
    return mask
