"""MADE: a fully connected autoencoder with masks that make it an autoregressive density.

Germain, Gregor, Murray, Larochelle: MADE: Masked Autoencoder for Distribution Estimation, 2015,
https://arxiv.org/abs/1502.03509. Inputs have positions d = 1 .. D in an order, and hidden unit k has a number m(k) from
1 to D - 1. The masks keep the weights with
    m(k) >= d          from the input at position d     (equation 8)
    m(k') >= m(k)      between hidden layers            (equation 12)
    d > m(k)           to the output at position d      (equation 9; a direct connection from d' has d > d')
so that output d only depends on inputs before d. With `masks` above 1, training cycles through that many random sets of
numbers, and of orders with `random_order` (algorithm 1); the model is their mixture (section 4).

Differs from the paper: values need not be binary (one of `training.layers.distributions` per value); the numbers of
hidden units are spread evenly and shuffled, so that all numbers occur if there are enough units; the mixture is over
the probabilities of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from training.layers.autoregressive import Autoregressive, AutoregressiveConfig, PixelLogProb
from training.layers.checks import check_at_least
from training.layers.distributions import PixelKind, build_distribution
from training.layers.masked import MaskedLinear, spread_numbers
from training.protocols import Batch, Likelihood, Loss


@dataclass(frozen=True, kw_only=True)
class MadeConfig(AutoregressiveConfig):
    """Configuration of `Made`; see also `AutoregressiveConfig`.

    Args:
        hidden: units of each hidden layer.
        masks: number of mask sets that training cycles through.
        random_order: each set has its own order, instead of raster order with the channels of a pixel side by side.
        direct: add direct connections from inputs to outputs.
    """

    size: int = 28
    channels: int = 1
    likelihood: PixelKind = "bernoulli"
    hidden: tuple[int, ...] = (500, 500)
    masks: int = 1
    random_order: bool = False
    direct: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))  # JSON and YAML give lists
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be positive numbers of units, one per layer, not {self.hidden}")
        check_at_least("masks", self.masks, 1)
        super().__post_init__()

    @property
    def latent_dim(self) -> int:
        return self.hidden[-1]


class Made(Autoregressive):
    """A MADE; its code is the last hidden layer under the first mask set.

    Example:
        >>> made = Made(MadeConfig(size=8, hidden=(32,)))
        >>> made.log_likelihood(torch.zeros(2, 1, 8, 8)).nats.shape
        torch.Size([2])
    """

    def __init__(self, config: MadeConfig) -> None:
        super().__init__(config)
        self.values = config.channels * config.size**2
        self.distribution = build_distribution(config.likelihood, 1, config.mixtures)
        units = (self.values, *config.hidden)
        self.layers: Any = nn.ModuleList(MaskedLinear(before, after) for before, after in pairwise(units))
        outputs = self.values * self.distribution.parameters
        self.out = MaskedLinear(units[-1], outputs)
        self.direct = MaskedLinear(self.values, outputs) if config.direct else None
        if self.direct is not None:
            nn.init.zeros_(self.direct.weight)
        # A label comes before all values, so its connections need no mask.
        fed = (*config.hidden, outputs) if config.classes else ()
        self.projections: Any = nn.ModuleList(nn.Linear(config.classes or 0, count, bias=False) for count in fed)
        self.order = torch.arange(self.values)  # not a buffer, as a moving average would blend it
        self._draw_masks(0)

    def use_masks(self, number: int) -> None:
        """Activate a mask set; equal numbers give equal masks.

        The active set is deliberately not remembered: a moving average of the model also averages its buffers, so the
        masks must be set again before use.
        """
        if self.config.masks > 1:
            self._draw_masks(number)

    @torch.no_grad()
    def _draw_masks(self, number: int) -> None:
        config, generator = self.config, torch.Generator().manual_seed(number)
        positions = torch.arange(1, self.values + 1)
        order = positions[torch.randperm(self.values, generator=generator)] if config.random_order else positions
        self.order = torch.argsort(order)
        before = order
        for layer, units in zip(self.layers, config.hidden, strict=True):
            numbers = spread_numbers(units, self.values, generator)
            layer.mask.copy_(numbers[:, None] >= before[None, :])
            before = numbers
        # The parameters of a value are adjacent in the outputs.
        positions_out = order.repeat_interleave(self.distribution.parameters)
        self.out.mask.copy_(positions_out[:, None] > before[None, :])
        if self.direct is not None:
            self.direct.mask.copy_(positions_out[:, None] > order[None, :])

    def loss(self, batch: Batch, step: int) -> Loss:
        """The loss of `Autoregressive`; in training every step uses the next mask set."""
        self.use_masks(step % self.config.masks if self.training else 0)
        return super().loss(batch, step)

    def pixel_log_prob(self, x: Tensor, label: Tensor | None = None) -> PixelLogProb:
        """Log-probability per pixel and code under the active masks."""
        flat, given = to_values(x), self.shown(label, len(x))
        hidden = self._hidden(flat, given)
        parameters = self._parameters_at(flat, hidden, given).to(x.dtype)
        nats = self.distribution.log_prob(flat[:, None, :, None], parameters)
        batch, channels, height, width = x.shape
        per_pixel = nats.reshape(batch, height, width, channels).sum(dim=3)
        return PixelLogProb(per_pixel, hidden.to(x.dtype))

    def latent(self, x: Tensor) -> Tensor:
        """The last hidden layer `(B, latent_dim)` under the active masks; outside of training, the first set."""
        return self._hidden(to_values(x), self.labels.planes(None, x.shape[0])).to(x.dtype)

    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        self.use_masks(0)
        return super().finish(batches)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Exact log-likelihood in nats per image, of the mixture over all mask sets, and over labels."""
        each = []
        for number in range(self.config.masks):
            self.use_masks(number)
            each.append(super().log_likelihood(x).nats)
        self.use_masks(0)
        nats = torch.logsumexp(torch.stack(each), dim=0) - math.log(len(each))
        return Likelihood(nats, exact=self.labels.sums_all)

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1]; every mask set draws an equal share of them.

        Args:
            temperature: below 1 for more probable images; 0 takes the most probable values.
            label: `(count,)`; None draws labels by their training frequency.
        """
        config = self.config
        blank = self.search.offset.new_zeros(count, config.channels, config.size, config.size)
        known = torch.zeros(config.size, config.size, dtype=torch.bool)
        given = self.labels.planes(self.labels.or_drawn(label, count, generator), count)
        return self._complete(blank, known, given, generator, temperature)

    def complete(
        self, x: Tensor, known: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Images `(B, C, S, S)` whose pixels outside of `known` `(S, S)` are drawn, each given those before it."""
        return self._complete(x, known, self.labels.planes(None, len(x)), generator, temperature)

    @torch.no_grad()
    def _complete(
        self, x: Tensor, known: Tensor, given: Tensor | None, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        if not temperature >= 0:
            raise ValueError(f"temperature must be at least 0, not {temperature}")
        values = to_values(x).clone()
        is_known = known.cpu()[:, :, None].expand(-1, -1, self.config.channels).flatten()
        shares = torch.arange(len(x)) * self.config.masks // max(len(x), 1)
        for number in shares.unique().tolist():
            self.use_masks(number)
            rows = shares == number
            some = None if given is None else given[rows]
            values[rows] = self._draw(values[rows], is_known, some, generator, temperature)
        self.use_masks(0)
        return to_images(values, x.shape)

    def _draw(
        self, values: Tensor, known: Tensor, given: Tensor | None, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        for position in self.order.tolist():
            if not bool(known[position]):
                hidden = self._hidden(values, given)
                parameters = self._parameters_at(values, hidden, given, only=position)[:, :, 0, 0]
                drawn = self.distribution.draw(parameters, values[:, position, None], 0, generator, temperature)
                values[:, position] = drawn[:, 0]
        return values

    def _hidden(self, flat: Tensor, given: Tensor | None) -> Tensor:
        """The last hidden layer of values `(B, D)`, with labels `(B, classes, 1, 1)`."""
        h = 2.0 * flat - 1.0
        for number, layer in enumerate(self.layers):
            wide = layer(h)
            h = relu(wide if given is None else wide + self.projections[number](given[:, :, 0, 0]))
        return h

    def _parameters_at(self, flat: Tensor, hidden: Tensor, given: Tensor | None, only: int | None = None) -> Tensor:
        """Parameters of all values `(B, P, D, 1)`, or of one value `(B, P, 1, 1)`."""
        count = self.distribution.parameters
        rows = slice(None) if only is None else slice(only * count, (only + 1) * count)
        out = linear(hidden, self.out.weight[rows] * self.out.mask[rows], self.out.bias[rows])
        if self.direct is not None:
            direct = self.direct
            out = out + linear(2.0 * flat - 1.0, direct.weight[rows] * direct.mask[rows], direct.bias[rows])
        if given is not None:
            out = out + linear(given[:, :, 0, 0], self.projections[-1].weight[rows])
        return out.reshape(len(flat), -1, count).transpose(1, 2)[:, :, :, None]


def to_values(x: Tensor) -> Tensor:
    """Values `(B, D)` of images `(B, C, S, S)` in raster order, with the channels of a pixel side by side."""
    return x.permute(0, 2, 3, 1).flatten(1)


def to_images(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Images of a shape `(B, C, S, S)` from values `(B, D)`; the inverse of `to_values`."""
    batch, channels, height, width = shape
    return values.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
