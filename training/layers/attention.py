"""A window of Gaussian filters that reads a patch of an image, or writes one into it.

Gregor, Danihelka, Graves, Rezende, Wierstra: DRAW: A Recurrent Neural Network For Image Generation, 2015,
https://arxiv.org/abs/1502.04623, section 3.2. A grid of N x N filters has its centre at (g_X, g_Y) and the stride
delta; filter i of an axis has its mean at (equations 19 and 20)
    mu_i = g + (i - N/2 - 0.5) delta,   i = 1 .. N,
and weighs pixel a = 1 .. S by exp(-(a - mu_i)^2 / (2 sigma^2)), normalised over a (equations 25 and 26). With the
matrices F_X and F_Y of the two axes and the intensity gamma, reading and writing are (equations 27 and 29)
    read(x) = gamma F_Y x F_X^T,   write(w) = 1/gamma F_Y^T w F_X.
The five numbers of a window are linear in the state of the decoder (equations 21 to 24).

Differs from the paper: the weights are normalised as a softmax, which equals the quotient and stays finite for windows
far outside of the image; the logarithms of variance, stride and intensity are bounded.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_LOG = 6.0  # of variance, stride and intensity, in absolute value


class Window(NamedTuple):
    """The grids of filters of a batch, each `(B,)`; lengths are in pixels, and 1 is the middle of the first pixel."""

    x: Tensor
    y: Tensor
    variance: Tensor
    stride: Tensor
    intensity: Tensor


class WindowHead(nn.Module):
    """The state of the decoder to a window, equations 21 to 24.

    Args:
        hidden: size of the state.
        size: side S of the images in pixels.
        filters: N, at least 2.
    """

    def __init__(self, hidden: int, size: int, filters: int) -> None:
        super().__init__()
        self.size, self.filters = size, filters
        self.numbers = nn.Linear(hidden, 5)

    def forward(self, h: Tensor) -> Window:
        with torch.autocast(h.device.type, enabled=False):  # halves would place a window to a quarter of a pixel
            x, y, *logarithms = self.numbers(h.to(self.numbers.weight)).unbind(dim=1)
        variance, stride, intensity = (value.clamp(-MAX_LOG, MAX_LOG).exp() for value in logarithms)
        half = 0.5 * (self.size + 1)
        stride = stride * (self.size - 1) / (self.filters - 1)
        return Window(half * (x + 1), half * (y + 1), variance, stride, intensity)


def filter_bank(centre: Tensor, stride: Tensor, variance: Tensor, filters: int, size: int) -> Tensor:
    """The filters of one axis, `(B, N, S)`, each with the sum 1; equations 19 and 25.

    Args:
        centre, stride, variance: `(B,)`, see `Window`.
        filters: N.
        size: S.
    """
    places = torch.arange(1, filters + 1, device=centre.device, dtype=centre.dtype) - (filters / 2 + 0.5)
    pixels = torch.arange(1, size + 1, device=centre.device, dtype=centre.dtype)
    means = centre[:, None] + places * stride[:, None]
    return torch.softmax(-torch.square(pixels - means[:, :, None]) / (2.0 * variance[:, None, None]), dim=2)


def read_patch(image: Tensor, window: Window, filters: int) -> Tensor:
    """The patch `(B, C, N, N)` of images `(B, C, S, S)` in a window; equation 27."""
    rows, columns = _banks(window, filters, image.shape[3])
    return window.intensity[:, None, None, None] * (rows @ image @ columns.mT)


def write_patch(patch: Tensor, window: Window, size: int) -> Tensor:
    """What a patch `(B, C, N, N)` adds to images `(B, C, S, S)` in a window; equation 29."""
    rows, columns = _banks(window, patch.shape[3], size)
    return (rows.mT @ patch @ columns) / window.intensity[:, None, None, None]


def extent(window: Window, filters: int) -> Tensor:
    """Left, top, right and bottom of the window, and the standard deviation of its filters, `(B, 5)`, in pixels.

    0 is the outer edge of the first pixel. A window reaches half a stride beyond its outermost filters.
    """
    half = 0.5 * filters * window.stride
    x, y = window.x - 0.5, window.y - 0.5
    return torch.stack([x - half, y - half, x + half, y + half, window.variance.sqrt()], dim=1)


def _banks(window: Window, filters: int, size: int) -> tuple[Tensor, Tensor]:
    """F_Y and F_X, `(B, 1, N, S)`, the same for all channels."""
    rows, columns = (
        filter_bank(centre, window.stride, window.variance, filters, size)[:, None] for centre in (window.y, window.x)
    )
    return rows, columns
