"""Likelihoods of images, in nats per image, for decoders that output one parameter per value.

The first two are probabilities over the 256 values of a channel, so their figures are comparable:

* `gaussian`: the mass of N(mean, sigma^2) on the value's bin of width w = 1/255, bounded below by Jensen with
  uniform noise u over the bin (Theis, van den Oord, Bethge: A note on the evaluation of generative models, 2016,
  https://arxiv.org/abs/1511.01844, section 3.1), in closed form:
  log P(x) >= E_u log N(x + u; mean, sigma^2) + log w = log N(x; mean, sigma^2) - w^2 / (24 sigma^2) + log w.
* `logistic`: discretised logistic (Salimans, Karpathy, Chen, Kingma: PixelCNN++, 2017,
  https://arxiv.org/abs/1701.05517, equation 2 with one component); the values 0 and 255 take the tails. Exact.
* `bernoulli`: x log p + (1 - x) log(1 - p), with p given by its logit. Exact for binarised images, in {0, 1}. For grey
  values in between it is a loss and not a probability, and its figures are not comparable with others.

Differs from the paper: the logistic is computed with log-sigmoids alone, without a special case for tiny masses.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

LikelihoodKind = Literal["gaussian", "logistic", "bernoulli"]
BIN = 1.0 / 255.0
MIN_LOG_SCALE = -7.0  # a scale far below one bin only wastes numerical range


def gaussian_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability (lower bound) per value of `x`, multiples of 1/255 in [0, 1], under N(mean, exp(log_scale)^2)."""
    precision = torch.exp(-2.0 * log_scale)
    constant = math.log(BIN) - 0.5 * math.log(2.0 * math.pi)
    return constant - log_scale - 0.5 * precision * (torch.square(x - mean) + BIN**2 / 12.0)


def logistic_log_prob(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability (exact) per value of `x`, multiples of 1/255 in [0, 1], under a discretised logistic.

    With a and b the standardised upper and lower edge of the bin,
    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), and b - a is the same for all bins.
    """
    inverse = torch.exp(-log_scale)
    centre = (x - mean) * inverse
    half = 0.5 * BIN * inverse
    below_top, above_bottom = x < 1.0 - 0.5 * BIN, x > 0.5 * BIN
    upper = torch.where(below_top, logsigmoid(centre + half), 0.0)
    lower = torch.where(above_bottom, logsigmoid(half - centre), 0.0)
    width = torch.log(-torch.expm1(-2.0 * half))
    return upper + lower + torch.where(below_top & above_bottom, width, 0.0)


def bernoulli_log_prob(x: Tensor, logit: Tensor) -> Tensor:
    """Log-probability per value of `x` in [0, 1] under a Bernoulli distribution with the given logit."""
    return -binary_cross_entropy_with_logits(logit, x, reduction="none")


class PixelLikelihood(nn.Module):
    """p(image | parameter): the parameter is a mean, with one scale per channel, or the logit of `bernoulli`.

    Args:
        kind: `gaussian`, `logistic` or `bernoulli`.
        channels: C.
        scale: fixed scale in units where a channel spans [0, 1]; None learns one per channel. Unused by `bernoulli`.
    """

    log_scale: Tensor

    def __init__(self, kind: LikelihoodKind, channels: int, scale: float | None = None) -> None:
        super().__init__()
        if kind not in get_args(LikelihoodKind):
            raise ValueError(f"likelihood must be one of {', '.join(get_args(LikelihoodKind))}, not {kind!r}")
        if scale is not None and not scale > 0:
            raise ValueError(f"scale must be above 0, not {scale}")
        self.kind = kind
        if kind == "bernoulli":
            return
        start = torch.full((channels, 1, 1), math.log(0.1 if scale is None else scale))
        if scale is None:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)

    def forward(self, x: Tensor, parameter: Tensor, weight: Tensor | None = None) -> Tensor:
        """Log-likelihood in nats per image `(...)`.

        Args:
            x: images `(..., C, H, W)` in [0, 1].
            parameter: of the same shape, or with more leading dimensions, over which `x` broadcasts.
            weight: weight of each pixel `(..., 1, H, W)`; None weights all pixels by 1.
        """
        nats = self._log_prob(x, parameter)
        if weight is not None:
            nats = nats * weight
        return nats.sum(dim=(-3, -2, -1))

    def mean(self, parameter: Tensor) -> Tensor:
        """The mean image, in [0, 1]."""
        return torch.sigmoid(parameter) if self.kind == "bernoulli" else parameter.clamp(0.0, 1.0)

    def _log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        if self.kind == "bernoulli":
            return bernoulli_log_prob(x.expand_as(parameter), parameter)
        log_prob = gaussian_log_prob if self.kind == "gaussian" else logistic_log_prob
        return log_prob(x, parameter, self.log_scale.clamp(min=MIN_LOG_SCALE))
