"""Convolutions that see an image in raster order, computed everywhere at once, along one row, or at one pixel.

A network of `CausalConv2d` is written once and says nothing of where it is computed: that is the business of a place.
`Everywhere` is one parallel pass, as in training. A `Cursor` stands on a row or a pixel of an image that grows, and
keeps what each convolution has been given so far, so that the next pixel costs the same whatever the image's size
(Ramachandran et al.: Fast Generation for Convolutional Autoregressive Models, 2017, https://arxiv.org/abs/1704.06001).

Networks of two streams (van den Oord et al. 2016, Salimans et al. 2017) compute the vertical one, which sees the rows
above alone, once for each row, and the horizontal one at each pixel; on a grid of half the side they stand still on
odd rows and columns (`halved`).

Differs from the paper: whole rows are kept in place of queues, which is simpler and no slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

LEAST_MARGIN = 4  # around images of a few pixels, whose first convolution may reach beyond their side


class CausalConv2d(nn.Conv2d):
    """A convolution with the padding of raster order, and perhaps a mask.

    The output at (i, j) sees rows from i - `above` on and columns from j - `before` on, `dilation` apart, kernel_size
    many. Sizes stay, or halve with a stride of 2.

    Args:
        kernel: rows and columns.
        above: rows of padding; more than the kernel's extent moves all down, so that the last row seen is above i.
        before: columns of padding on the left; likewise.
        mask: 1 where weights are, 0 where they are not; broadcasts over the weight.
        gain: standard deviation of the outputs at first, of inputs with a mean square of 1.
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
        """Outputs at a place, of inputs there; of the image itself where none are given."""
        out: Tensor = at.convolve(self, x)
        return out


class Scope(Protocol):
    """Where a network is computed."""

    def convolve(self, conv: CausalConv2d, x: Tensor | None) -> Tensor:
        """A convolution's outputs here, of its inputs here `(B, C, h, w)`, or of the image."""
        ...

    def crop(self, x: Tensor) -> Tensor:
        """What is here of a map of the whole image; maps of one pixel stand for all of it."""
        ...

    def column(self, row: Tensor) -> Tensor:
        """What is here of what was computed along the row."""
        ...

    def halved(
        self, conv: CausalConv2d, x: Tensor, inside: Callable[[Tensor, Scope], tuple[Tensor, Any]]
    ) -> tuple[Tensor, Any]:
        """What `inside` makes of a convolution of stride 2 on the grid of half the side, which it brings back to this
        one, and whatever it gives besides."""
        ...


class Everywhere:
    """All pixels of images `(B, C, H, W)` at once."""

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
        return inside(self.convolve(conv, x), self)


class Cursor:
    """One row, or one pixel of it, of images `(B, C, H, W)` that grow in raster order.

    Without gradients, and for one network: what its convolutions were given is kept by convolution.
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
        """Stand on all of a row."""
        self._row, self._column = row, -1
        return self

    def to_pixel(self, row: int, column: int) -> Cursor:
        """Stand on one pixel."""
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
        """The first column that it stands on."""
        return max(self._column, 0)

    def keep(self, key: Any, like: Tensor, features: int, *, above: int = 0, before: int = 0, after: int = 0) -> Tensor:
        """A map of the image `(B, features, H + above, W + before + after)` for a layer to write into, zeros at first.

        Args:
            key: of the map.
            like: a tensor of the same batch and type.
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
        wide, besides = self._kept[conv]
        return self.column(wide[:, :, row % 2 : row % 2 + 1]), besides

    def _keep(self, conv: CausalConv2d, grown: Tensor, besides: Any) -> None:
        """Keep two rows that were brought back from the grid of half the side, or two pixels of them."""
        if self.is_on_row:
            self._kept[conv] = grown, besides
            return
        if conv not in self._kept:
            width = self._shape[3] >> self._level
            self._kept[conv] = grown.new_zeros(*grown.shape[:3], width), besides
        self._kept[conv][0][:, :, :, self._column : self._column + 2] = grown

    def _remember(self, conv: CausalConv2d, x: Tensor) -> None:
        if conv not in self._given:
            height, width = (side >> self._level for side in self._shape[2:])
            extent = (height + conv.above, width + conv.before + max(conv.after, 0))
            self._given[conv] = x.new_zeros(x.shape[0], x.shape[1], *extent)
        first = conv.before + self.first
        self._given[conv][:, :, conv.above + self._row, first : first + x.shape[3]] = x[:, :, 0]

    def _window(self, conv: CausalConv2d, of_image: bool) -> Tensor:
        """The inputs that a convolution needs here, its rows already `dilation` apart."""
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
    """Which channel of a pixel each of `count` features stands for `(count,)`: equal parts in the channels' order."""
    return torch.arange(count) * channels // count


def channel_mask(outputs: Tensor, inputs: Tensor, *, includes_own: bool) -> Tensor:
    """`(outputs, inputs, 1, 1)`: 1 where a feature may see another at its own pixel; van den Oord et al. 2016, 3.4.

    Args:
        outputs: the channel that each output stands for.
        inputs: the channel that each input stands for.
        includes_own: mask B, which lets a feature see its own channel; mask A does not.
    """
    seen = inputs[None, :] <= outputs[:, None] if includes_own else inputs[None, :] < outputs[:, None]
    return seen.float()[:, :, None, None]


def last_tap_mask(kernel: tuple[int, int], own: Tensor) -> Tensor:
    """A mask whose last row ends at the pixel itself, where `own` `(outputs, inputs, 1, 1)` rules; all above is seen.

    Columns after the middle of the last row are hidden where the kernel has more than its row above.
    """
    rows, columns = kernel
    mask = torch.ones(own.shape[0], own.shape[1], rows, columns)
    middle = columns // 2 if rows > 1 else columns - 1
    mask[:, :, -1, middle] = own[:, :, 0, 0]
    mask[:, :, -1, middle + 1 :] = 0.0
    return mask
