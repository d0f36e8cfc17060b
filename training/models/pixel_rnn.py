"""PixelRNN: an image's pixels in raster order, each given those before it by recurrent layers over two dimensions.

van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016, https://arxiv.org/abs/1601.06759.
With input-to-state K_is (masked) and state-to-state K_ss, equation 3:
    [o, f, i, g] = sigma(K_ss * h' + K_is * x),   c = f . c' + i . g,   h = o . tanh(c)      (tanh for g)
* `row` (section 3.1): h', c' are the row above; K_ss spans three pixels of it, so a pixel sees a triangle above it.
* `diagonal` (section 3.2): rows are shifted by one more pixel each, and the state runs over the columns of that, from
  the pixel on the left and the one above; once from the left and once from the right, whose states are moved down by a
  row. A pixel sees all that comes before it, and a diagonal is computed at once.
One convolution of mask A stands before the layers; each layer adds to its input (section 3.3).

Differs from the paper: the image has a plane of ones besides, and the head is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from training.distributions import build_distribution
from training.models.autoregressive import RasterConfig, RasterModel
from training.models.causal import CausalConv2d, Place, last_tap_mask
from training.models.checks import check_at_least, check_choice
from training.models.pixel_cnn import Head, own_channels
from training.models.raster import Seen

Recurrence = Literal["row", "diagonal"]


@dataclass(frozen=True, kw_only=True)
class PixelRnnConfig(RasterConfig):
    """Configuration of `PixelRnn`; see also `RasterConfig`.

    Args:
        recurrence: `row` or `diagonal`.
        layers: recurrent layers, each of half the `width` units.
        kernel: odd side of the first convolution.
        head: features before the last layer.
    """

    recurrence: Recurrence = "diagonal"
    layers: int = 2
    kernel: int = 7
    head: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("recurrence", self.recurrence, get_args(Recurrence))
        check_at_least("layers", self.layers, 1)
        check_at_least("head", self.head, self.channels)
        if self.kernel % 2 == 0 or not 3 <= self.kernel <= self.size:
            raise ValueError(f"kernel must be odd and between 3 and size ({self.size}), not {self.kernel}")


class PixelRnn(RasterModel):
    """A Row LSTM or a Diagonal BiLSTM.

    Example:
        >>> model = PixelRnn(PixelRnnConfig(size=8, width=8, layers=1, kernel=3, head=6, pool=2))
        >>> model.log_likelihood(torch.rand(2, 3, 8, 8)).nats.shape
        torch.Size([2])
    """

    is_exportable = False  # the recurrence is a loop over rows or diagonals

    def __init__(self, config: PixelRnnConfig) -> None:
        distribution = build_distribution(config.likelihood, config.channels, config.mixtures)
        groups = config.channels if distribution.grouped else 0
        super().__init__(config, RecurrentNetwork(config, distribution.parameters, groups))


class RecurrentNetwork(nn.Module):
    """A masked convolution, recurrent layers and a head; see `training.models.raster.RasterNetwork`."""

    follows_cursor = False

    def __init__(self, config: PixelRnnConfig, parameters: int, groups: int) -> None:
        super().__init__()
        half, width = config.kernel // 2, config.width
        values = own_channels(width, config.channels, groups, includes_own=False)
        mask = last_tap_mask((half + 1, config.kernel), torch.cat([values, torch.zeros(width, 1, 1, 1)], dim=1))
        inputs = config.channels + 1
        self.first = CausalConv2d(inputs, width, (half + 1, config.kernel), above=half, before=half, mask=mask)
        layer = RowLstm if config.recurrence == "row" else DiagonalBiLstm
        self.layers = nn.ModuleList(layer(width, groups) for _ in range(config.layers))
        count = config.layers if config.classes else 0
        self.projections = nn.ModuleList(nn.Conv2d(config.classes or 0, width, 1, bias=False) for _ in range(count))
        self.head = Head(width, config.head, parameters, groups)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        return [] if condition is None else [project(condition) for project in self.projections]

    def vertical(self, at: Place, conditions: list[Tensor]) -> None:
        return None

    def horizontal(self, at: Place, vertical: None, conditions: list[Tensor]) -> Seen:
        h = self.first(at)
        for place, layer in enumerate(self.layers):
            h = layer(at, h + conditions[place] if conditions else h)
        seen: Seen = self.head(at, h)
        return seen


class RowLstm(nn.Module):
    """x + 1 x 1 (LSTM of x down the rows)."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        units = max(width // 2, groups, 1)
        own = own_channels(units, width, groups).repeat(4, 1, 1, 1)
        self.from_input = CausalConv2d(width, 4 * units, (1, 2), before=1, mask=last_tap_mask((1, 2), own))
        self.from_state = nn.Conv1d(units, 4 * units, 3, padding=1, bias=False)
        self.out = CausalConv2d(units, width, (1, 1), mask=own_channels(width, units, groups))

    def forward(self, at: Place, x: Tensor) -> Tensor:
        steps = self.from_input(at, x).unbind(dim=2)
        states = run_lstm(steps, self.from_state.weight, (1, 1))
        h: Tensor = x + self.out(at, torch.stack(states, dim=2).to(x.dtype))
        return h


class DiagonalBiLstm(nn.Module):
    """x + 1 x 1 (LSTM from the left + LSTM from the right, a row lower), both down the diagonals."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        units = max(width // 2, groups, 1)
        own = own_channels(units, width, groups).repeat(4, 1, 1, 1)
        self.from_input = nn.ModuleList(CausalConv2d(width, 4 * units, (1, 1), mask=own) for _ in range(2))
        self.from_state: Any = nn.ModuleList(nn.Conv1d(units, 4 * units, 2, bias=False) for _ in range(2))
        self.out = CausalConv2d(units, width, (1, 1), mask=own_channels(width, units, groups))

    def forward(self, at: Place, x: Tensor) -> Tensor:
        left = self._run(self.from_input[0](at, x), 0)
        right = self._run(self.from_input[1](at, x).flip(3), 1).flip(3)
        h: Tensor = x + self.out(at, (left + pad(right, (0, 0, 1, 0))[:, :, :-1]).to(x.dtype))
        return h

    def _run(self, gates: Tensor, direction: int) -> Tensor:
        weight = self.from_state[direction].weight
        states = run_lstm(skew(gates).unbind(dim=3), weight, (1, 0))
        return unskew(torch.stack(states, dim=3))


def run_lstm(steps: tuple[Tensor, ...], weight: Tensor, padding: tuple[int, int]) -> list[Tensor]:
    """States `(B, U, N)` of an LSTM after each step.

    Args:
        steps: what the input gives to output, forget and input gates and to the new values, `(B, 4 U, N)` each.
        weight: of the convolution over the state before, `(4 U, U, taps)`.
        padding: of that state on both sides.
    """
    h = c = steps[0].new_zeros(steps[0].shape[0], steps[0].shape[1] // 4, steps[0].shape[2])
    states: list[Tensor] = []
    for given in steps:
        gates = given + conv1d(pad(h, padding), weight) if states else given
        o, f, i, g = gates.chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return states


def skew(x: Tensor) -> Tensor:
    """`(B, F, H, W)` with row i moved i to the right, `(B, F, H, W + H - 1)`."""
    batch, features, height, width = x.shape
    flat = pad(x, (0, height)).flatten(2)[:, :, :-height]
    return flat.reshape(batch, features, height, width + height - 1)


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`."""
    batch, features, height, wide = x.shape
    flat = pad(x.flatten(2), (0, height))
    return flat.reshape(batch, features, height, wide + 1)[:, :, :, : wide + 1 - height]
