"""Distributions over the next row of a drawing in the stroke-5 format, and the losses of Sketch-RNN.

A row is (dx, dy, p1, p2, p3): the offset from the point before, and one of three pen states: p1, the pen draws from
this point to the next; p2, it is lifted after this point; p3, the drawing has ended, and this row is no point. Ha, Eck:
A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477, equations 3 to 9: offsets are a
mixture of M bivariate normals, pen states are categorical, both given the rows before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

END = 4  # column of the pen state p3
MIN_LOG_DEVIATION = -7.0  # of offsets with a deviation of 1: at 0.001, no density of repeated offsets explodes
MAX_CORRELATION = 0.999


class RowDistribution(NamedTuple):
    """Distributions of the next row after each of `(...)` prefixes.

    Args:
        log_weights: log Pi of the components, `(..., M)`.
        mean: of the components, `(..., M, 2)`.
        log_deviation: log sigma_x and log sigma_y, `(..., M, 2)`.
        correlation: rho_xy, `(..., M)`.
        log_pen: log-probabilities of the pen states, `(..., 3)`.
    """

    log_weights: Tensor
    mean: Tensor
    log_deviation: Tensor
    correlation: Tensor
    log_pen: Tensor

    def log_density(self, offsets: Tensor) -> Tensor:
        """log p(dx, dy) `(...)` of offsets `(..., 2)` (equation 3)."""
        x, y = ((offsets[..., None, :] - self.mean) * torch.exp(-self.log_deviation)).unbind(-1)
        rest = 1.0 - self.correlation**2
        squared = x**2 + y**2 - 2.0 * self.correlation * x * y
        normal = -0.5 * squared / rest - 0.5 * torch.log(rest) - self.log_deviation.sum(-1) - math.log(2.0 * math.pi)
        return torch.logsumexp(self.log_weights + normal, dim=-1)

    def log_probability(self, rows: Tensor) -> Tensor:
        """log p `(...)` of the pen states of rows `(..., 5)`."""
        return (self.log_pen * rows[..., 2:]).sum(-1)

    def draw(self, temperature: float, generator: torch.Generator | None = None) -> Tensor:
        """Rows `(B, 5)`, where this is of shape `(B,)`.

        Logits are divided by the temperature, and variances multiplied by it (equation 8). At 0 a row is the mean of
        the heaviest component, with the most probable pen state.
        """
        at = torch.arange(len(self.mean), device=self.mean.device)
        if temperature == 0:
            component, pen = self.log_weights.argmax(-1), self.log_pen.argmax(-1)
            offsets = self.mean[at, component]
        else:
            component = _choose(self.log_weights / temperature, generator)
            pen = _choose(self.log_pen / temperature, generator)
            x, y = _noise(self.mean[:, 0], generator).unbind(-1)
            correlation = self.correlation[at, component]
            standard = torch.stack([x, correlation * x + torch.sqrt(1.0 - correlation**2) * y], dim=-1)
            deviation = math.sqrt(temperature) * torch.exp(self.log_deviation[at, component])
            offsets = self.mean[at, component] + deviation * standard
        states = torch.nn.functional.one_hot(pen, 3).to(offsets)
        return torch.cat([offsets * (1.0 - states[:, 2:]), states], dim=-1)


def row_distribution(outputs: Tensor, mixtures: int) -> RowDistribution:
    """The distribution in the outputs `(..., 6 M + 3)` of a decoder (equations 5 to 7)."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))  # halves are too coarse for densities
    sizes = [mixtures, 2 * mixtures, 2 * mixtures, mixtures, 3]
    weights, mean, deviation, correlation, pen = torch.split(outputs, sizes, dim=-1)
    return RowDistribution(
        log_weights=log_softmax(weights, dim=-1),
        mean=mean.reshape(*mean.shape[:-1], mixtures, 2),
        log_deviation=deviation.reshape(*deviation.shape[:-1], mixtures, 2).clamp(min=MIN_LOG_DEVIATION),
        correlation=MAX_CORRELATION * torch.tanh(correlation),
        log_pen=log_softmax(pen, dim=-1),
    )


class DrawingNats(NamedTuple):
    """Negative log-likelihoods of drawings in nats, each `(B,)`.

    Args:
        offsets: sum over the N_s points.
        pens: sum over all N_max rows, those of the padding too.
        pens_to_end: sum over the N_s points and the row that ends the drawing.
    """

    offsets: Tensor
    pens: Tensor
    pens_to_end: Tensor


def drawing_nats(found: RowDistribution, rows: Tensor) -> DrawingNats:
    """The sums of equation 9, before they are divided by N_max.

    Args:
        found: of each row given the rows before it, `(B, N_max)`.
        rows: `(B, N_max, 5)`.
    """
    is_point = 1.0 - rows[..., END]
    offsets = -(is_point * found.log_density(rows[..., :2])).sum(-1)
    pens = -found.log_probability(rows)
    ended = rows[..., END].cumsum(-1)  # 1 at the row that ends the drawing
    return DrawingNats(offsets, pens.sum(-1), (pens * (ended <= 1.0)).sum(-1))


def lengths_of(rows: Tensor) -> Tensor:
    """N_s `(B,)` int64: the number of points of drawings `(B, N_max, 5)`."""
    return (rows[..., END] < 0.5).sum(-1)


def _choose(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Indices `(B,)` drawn with the probabilities of logits `(B, K)`."""
    device = logits.device if generator is None else generator.device
    shares = torch.softmax(logits, dim=-1).to(device)
    return torch.multinomial(shares, 1, generator=generator).squeeze(-1).to(logits.device)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=device).to(like.device)
