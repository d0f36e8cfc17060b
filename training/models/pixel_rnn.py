"""PixelRNN: the pixels of an image in raster order, each predicted from those before it by two-dimensional LSTMs.

van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent Neural Networks, 2016, https://arxiv.org/abs/1601.06759.
With input-to-state K_is (masked) and state-to-state K_ss, equation 3:
    [o, f, i, g] = sigma(K_ss * h' + K_is * x),   c = f . c' + i . g,   h = o . tanh(c)      (tanh for g)
* `row` (section 3.1): h', c' are the states of the row above; K_ss spans three of its pixels, so the receptive field is
  a triangle above the pixel.
* `diagonal` (section 3.2): each row is shifted by one pixel more than the row above, and the recurrence runs over the
  columns of the result, from the pixel on the left and the pixel above. It runs once from the left and once from the
  right, and the states from the right are moved down by one row. The receptive field is all earlier pixels except the
  end of the row above, and a diagonal is computed in one step.
A convolution of mask A precedes the layers; each layer is residual (section 3.3).

Differs from the paper: the image has an additional plane of ones, and the head is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, pad

from training.layers.autoregressive import RasterConfig, RasterModel
from training.layers.causal import CausalConv2d, Cursor, Scope, last_tap_mask
from training.layers.checks import check_at_least, check_choice
from training.layers.distributions import build_distribution
from training.layers.gated import Head, first_convolution, own_channels
from training.layers.raster import RasterOutput

Recurrence = Literal["row", "diagonal"]


@dataclass(frozen=True, kw_only=True)
class PixelRnnConfig(RasterConfig):
    """Configuration of `PixelRnn`; see also `RasterConfig`.

    Args:
        recurrence: `row` or `diagonal`.
        layers: number of recurrent layers, each with `width` / 2 units.
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
    """A masked convolution, recurrent layers and a head; see `training.layers.raster.RasterNetwork`."""

    follows_cursor = True

    def __init__(self, config: PixelRnnConfig, parameters: int, groups: int) -> None:
        super().__init__()
        width = config.width
        self.first = first_convolution(config.channels + 1, width, config.kernel, groups)
        layer = RowLstm if config.recurrence == "row" else DiagonalBiLstm
        self.layers = nn.ModuleList(layer(width, groups) for _ in range(config.layers))
        count = config.layers if config.classes else 0
        self.projections = nn.ModuleList(nn.Conv2d(config.classes or 0, width, 1, bias=False) for _ in range(count))
        self.head = Head(width, config.head, parameters, groups)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        return [] if condition is None else [project(condition) for project in self.projections]

    def vertical(self, at: Scope, conditions: list[Tensor]) -> None:
        return None

    def horizontal(self, at: Scope, vertical: None, conditions: list[Tensor]) -> RasterOutput:
        h = self.first(at)
        for number, layer in enumerate(self.layers):
            h = layer(at, h + at.crop(conditions[number]) if conditions else h)
        output: RasterOutput = self.head(at, h)
        return output


class RowLstm(nn.Module):
    """x + 1 x 1 convolution of an LSTM that runs down the rows of x."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        units = max(width // 2, groups, 1)
        own = own_channels(units, width, groups).repeat(4, 1, 1, 1)
        self.from_input = CausalConv2d(width, 4 * units, (1, 2), before=1, mask=last_tap_mask((1, 2), own))
        self.from_state = nn.Conv1d(units, 4 * units, 3, padding=1, bias=False)
        self.out = CausalConv2d(units, width, (1, 1), mask=own_channels(width, units, groups))

    def forward(self, at: Scope, x: Tensor) -> Tensor:
        given = self.from_input(at, x)
        if isinstance(at, Cursor):
            states = self._here(at, given)
        else:
            states = torch.stack(run_lstm(given.unbind(dim=2), self.from_state.weight, (1, 1)), dim=2)
        h: Tensor = x + self.out(at, states.to(x.dtype))
        return h

    def _here(self, at: Cursor, given: Tensor) -> Tensor:
        """States along a row or at a pixel, from the states of the row above."""
        units, width = given.shape[1] // 4, given.shape[3]
        kept = at.keep(self, given, 2 * units, above=1, before=1, after=1)
        columns = slice(at.first, at.first + width + 2)
        h, c = kept[:, :, at.row, columns].chunk(2, dim=1)
        state = lstm_step(given[:, :, 0] + conv1d(h, self.from_state.weight), c[:, :, 1:-1])
        kept[:, :, at.row + 1, at.first + 1 : at.first + 1 + width] = torch.cat(state, dim=1)
        return state.h[:, :, None]


class DiagonalBiLstm(nn.Module):
    """x + 1 x 1 convolution of LSTMs along the diagonals, from the left, and from the right moved down by a row."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        units = max(width // 2, groups, 1)
        own = own_channels(units, width, groups).repeat(4, 1, 1, 1)
        self.from_input = nn.ModuleList(CausalConv2d(width, 4 * units, (1, 1), mask=own) for _ in range(2))
        self.from_state: Any = nn.ModuleList(nn.Conv1d(units, 4 * units, 2, bias=False) for _ in range(2))
        self.out = CausalConv2d(units, width, (1, 1), mask=own_channels(width, units, groups))

    def forward(self, at: Scope, x: Tensor) -> Tensor:
        given = [from_input(at, x) for from_input in self.from_input]
        if isinstance(at, Cursor):
            states = self._here(at, *given)
        else:
            right = self._run(given[1].flip(3), 1).flip(3)
            states = self._run(given[0], 0) + pad(right, (0, 0, 1, 0))[:, :, :-1]
        h: Tensor = x + self.out(at, states.to(x.dtype))
        return h

    def _here(self, at: Cursor, left: Tensor, right: Tensor) -> Tensor:
        """States along a row or at a pixel; those from the right are of the row above."""
        gates = at.keep((self, "right"), right, right.shape[1])
        gates[:, :, at.row, at.first : at.first + right.shape[3]] = right[:, :, 0]
        states = self._states(at, 1, left)
        if at.first == 0 and at.row > 0:
            width = gates.shape[3]
            for column in range(width):  # from the right, so columns are numbered backwards
                self._go_on(states, 1, gates[:, :, at.row - 1, width - 1 - column], at.row - 1, column)
        above = states[:, : left.shape[1] // 4, at.row, 1:].flip(2)[:, :, at.first : at.first + left.shape[3]]
        kept = self._states(at, 0, left)
        found = [
            self._go_on(kept, 0, left[:, :, 0, column], at.row, at.first + column) for column in range(left.shape[3])
        ]
        return (torch.stack(found, dim=2) + above)[:, :, None]

    def _states(self, at: Cursor, direction: int, like: Tensor) -> Tensor:
        """Cached h and c of every pixel `(B, 2 U, H + 1, W + 1)`, after a row and a column of zeros."""
        return at.keep((self, direction), like, like.shape[1] // 2, above=1, before=1)

    def _go_on(self, states: Tensor, direction: int, given: Tensor, row: int, column: int) -> Tensor:
        """h `(B, U)` at a pixel, from the states above and beside it; adds its state to the cache."""
        above, beside = states[:, :, row, column + 1], states[:, :, row + 1, column]
        units = above.shape[1] // 2
        h = torch.stack([above[:, :units], beside[:, :units]], dim=2)
        gates = given[:, :, None] + conv1d(h, self.from_state[direction].weight)
        state = lstm_step(gates, beside[:, units:, None])
        states[:, :, row + 1, column + 1] = torch.cat(state, dim=1)[:, :, 0]
        return state.h[:, :, 0]

    def _run(self, gates: Tensor, direction: int) -> Tensor:
        weight = self.from_state[direction].weight
        states = run_lstm(skew(gates).unbind(dim=3), weight, (1, 0))
        return unskew(torch.stack(states, dim=3))


class State(NamedTuple):
    """Hidden state and cells of an LSTM, `(B, U, N)` each."""

    h: Tensor
    c: Tensor


def run_lstm(steps: tuple[Tensor, ...], weight: Tensor, padding: tuple[int, int]) -> list[Tensor]:
    """States `(B, U, N)` of an LSTM after each step.

    Args:
        steps: contributions of the input to the output, forget and input gates and the new values, `(B, 4 U, N)` each.
        weight: weight of the convolution over the previous state, `(4 U, U, taps)`.
        padding: padding of that state on both sides.
    """
    zeros = steps[0].new_zeros(steps[0].shape[0], steps[0].shape[1] // 4, steps[0].shape[2])
    state = State(zeros, zeros)
    states: list[Tensor] = []
    for given in steps:
        gates = given + conv1d(pad(state.h, padding), weight) if states else given
        state = lstm_step(gates, state.c)
        states.append(state.h)
    return states


def lstm_step(gates: Tensor, c: Tensor) -> State:
    """The next state, from gates `(B, 4 U, N)` before their sigmoids and previous cells `(B, U, N)`."""
    o, f, i, g = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return State(torch.sigmoid(o) * torch.tanh(c), c)


def skew(x: Tensor) -> Tensor:
    """`(B, F, H, W)` with row i shifted i to the right, `(B, F, H, W + H - 1)`."""
    batch, features, height, width = x.shape
    flat = pad(x, (0, height)).flatten(2)[:, :, :-height]
    return flat.reshape(batch, features, height, width + height - 1)


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`."""
    batch, features, height, wide = x.shape
    flat = pad(x.flatten(2), (0, height))
    return flat.reshape(batch, features, height, wide + 1)[:, :, :, : wide + 1 - height]
