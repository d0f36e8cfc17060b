"""Distributions over the channels of a pixel for autoregressive models, given the parameters that a network outputs.

* `Bernoulli`: one logit per channel; for binarised images.
* `Categorical`: a softmax over all levels of each channel (van den Oord, Kalchbrenner, Kavukcuoglu: Pixel Recurrent
  Neural Networks, 2016, https://arxiv.org/abs/1601.06759, section 3.2); channels are drawn one after the other, so the
  parameters of each must depend on the channels before it.
* `LogisticMixture`: Salimans, Karpathy, Chen, Kingma: PixelCNN++, 2017, https://arxiv.org/abs/1701.05517, equations 1
  to 3: one mixture of discretised logistics for the whole pixel. The means of later channels are shifted linearly by
  the values of earlier ones, and the values 0 and 255 take the tails.

Log-probabilities are in nats. Samples are drawn by inversion in double precision, from uniform numbers of a CPU
generator, so that equal generators give equal samples. A temperature T divides the logits and multiplies the scales; 0
takes the most probable value of each softmax, and the mean of the most probable logistic.

Differs from the papers: sampled values are rounded to the levels at once, as in the likelihood.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from training.layers.likelihoods import bernoulli_log_prob, logistic_log_prob

PixelKind = Literal["bernoulli", "categorical", "logistic-mixture"]
LEVELS = 256
MIN_LOG_SCALE = -7.0  # in units where a channel spans [-1, 1], as in the paper's code


class PixelDistribution(Protocol):
    """A distribution over the channels of a pixel.

    Attributes:
        parameters: number of parameters P per pixel that the network outputs.
        steps: number of draws per pixel; the network is evaluated again before each of them.
        grouped: whether the parameters of channel c, the c-th part of the P, may only depend on channels before c.
    """

    parameters: int
    steps: int
    grouped: bool

    def log_prob(self, values: Tensor, parameters: Tensor) -> Tensor:
        """Log-probability in nats per pixel `(B, H, W)` of values `(B, C, H, W)`, given parameters `(B, P, H, W)`."""
        ...

    def draw(
        self, parameters: Tensor, pixel: Tensor, step: int, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        """The pixel `(B, C)` with the channels of step `step` redrawn, given parameters `(B, P)`."""
        ...


class Bernoulli:
    """Channels in {0, 1}, independent given the parameters."""

    grouped = True

    def __init__(self, channels: int) -> None:
        self.parameters = self.steps = channels

    def log_prob(self, values: Tensor, parameters: Tensor) -> Tensor:
        return bernoulli_log_prob(values, parameters).sum(dim=1)

    def draw(
        self, parameters: Tensor, pixel: Tensor, step: int, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        logit = parameters[:, step].double()
        uniform = _uniform(len(pixel), generator, logit.device)
        drawn = logit > 0 if temperature == 0 else torch.sigmoid(logit / temperature) > uniform
        return _with(pixel, step, drawn.to(pixel))


class Categorical:
    """A softmax over the levels of each channel; values are level indices."""

    grouped = True

    def __init__(self, channels: int, levels: int) -> None:
        self.levels = levels
        self.steps = channels
        self.parameters = channels * levels

    def log_prob(self, values: Tensor, parameters: Tensor) -> Tensor:
        batch, channels, height, width = values.shape
        logits = parameters.reshape(batch, channels, self.levels, height, width).transpose(1, 2)
        return log_softmax(logits, dim=1).gather(1, self.to_level(values)[:, None])[:, 0].sum(dim=1)

    def draw(
        self, parameters: Tensor, pixel: Tensor, step: int, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        level = _choose(parameters[:, step * self.levels : (step + 1) * self.levels], generator, temperature)
        return _with(pixel, step, self.to_value(level).to(pixel))

    def to_level(self, values: Tensor) -> Tensor:
        return values

    def to_value(self, levels: Tensor) -> Tensor:
        return levels


class Pixels(Categorical):
    """`Categorical` of the 256 levels of 8-bit channels given in [0, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, LEVELS)

    def to_level(self, values: Tensor) -> Tensor:
        return torch.round(values * (LEVELS - 1)).long()

    def to_value(self, levels: Tensor) -> Tensor:
        return levels.double() / (LEVELS - 1)


class LogisticMixture:
    """K logistics over the 256 levels of 8-bit channels given in [0, 1].

    The parameters are K logits, then K means and K log-scales for each channel in units where a channel spans [-1, 1],
    then K coefficients for each pair of channels (G on R; B on R and on G), before the tanh.
    """

    grouped = False

    def __init__(self, channels: int, mixtures: int) -> None:
        if mixtures < 1:
            raise ValueError(f"mixtures must be at least 1, not {mixtures}")
        self.channels = channels
        self.mixtures = mixtures
        self.steps = 1
        self.parameters = mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, values: Tensor, parameters: Tensor) -> Tensor:
        logits, means, log_scales, coefficients = self._parts(parameters)
        centred = 2.0 * values - 1.0
        nats = log_softmax(logits, dim=1)
        for channel in range(self.channels):
            mean = self._mean(channel, means, coefficients, centred)
            x = values[:, channel, None].expand_as(mean)
            # `logistic_log_prob` takes units where a channel spans [0, 1].
            nats = nats + logistic_log_prob(x, 0.5 + 0.5 * mean, log_scales[:, channel] - math.log(2.0))
        return torch.logsumexp(nats, dim=1)

    def draw(
        self, parameters: Tensor, pixel: Tensor, step: int, generator: torch.Generator | None, temperature: float
    ) -> Tensor:
        parts = self._parts(parameters.double()[:, :, None, None])
        chosen = _choose(parts[0][:, :, 0, 0], generator, temperature)
        picked = chosen[:, None, None, None, None]
        means, log_scales, coefficients = (
            part.gather(2, picked.expand(-1, part.shape[1], -1, -1, -1)) for part in parts[1:]
        )
        values = torch.zeros(len(pixel), self.channels, 1, 1, dtype=torch.float64, device=parameters.device)
        for channel in range(self.channels):
            uniform = _uniform(len(pixel), generator, parameters.device).clamp(1e-12, 1.0 - 1e-12)
            spread = torch.exp(log_scales[:, channel, 0, 0, 0]) * torch.logit(uniform)
            mean = self._mean(channel, means, coefficients, 2.0 * values - 1.0)[:, 0, 0, 0]
            level = torch.round((0.5 + 0.5 * (mean + temperature * spread)).clamp(0.0, 1.0) * (LEVELS - 1))
            values[:, channel, 0, 0] = level / (LEVELS - 1)
        return values[:, :, 0, 0].to(pixel)

    def _parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits `(B, K, H, W)`; means, log-scales `(B, C, K, H, W)` and coefficients `(B, pairs, K, H, W)`."""
        batch, _, height, width = parameters.shape
        count, channels = self.mixtures, self.channels
        rest = parameters[:, count:].reshape(batch, -1, count, height, width)
        log_scales = rest[:, channels : 2 * channels].clamp(min=MIN_LOG_SCALE)
        return parameters[:, :count], rest[:, :channels], log_scales, torch.tanh(rest[:, 2 * channels :])

    @staticmethod
    def _mean(channel: int, means: Tensor, coefficients: Tensor, centred: Tensor) -> Tensor:
        """Means `(B, K, H, W)` of a channel, given the values `(B, C, H, W)` in [-1, 1] of those before it."""
        mean = means[:, channel]
        first = channel * (channel - 1) // 2
        for before in range(channel):
            mean = mean + coefficients[:, first + before] * centred[:, before, None]
        return mean


def build_distribution(kind: PixelKind, channels: int, mixtures: int) -> PixelDistribution:
    """Build a distribution for images with 8-bit or binary channels."""
    if kind == "bernoulli":
        return Bernoulli(channels)
    if kind == "categorical":
        return Pixels(channels)
    if kind == "logistic-mixture":
        return LogisticMixture(channels, mixtures)
    raise ValueError(f"likelihood must be one of {', '.join(get_args(PixelKind))}, not {kind!r}")


def _choose(logits: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
    """Indices `(B,)` drawn by logits `(B, N)`."""
    # On the CPU: the order of cumulative sums on a GPU varies, and samples must not depend on it.
    uniform = _uniform(len(logits), generator, torch.device("cpu"))
    if temperature == 0:
        return logits.argmax(dim=1)
    cumulative = torch.softmax(logits.double().cpu() / temperature, dim=1).cumsum(dim=1)
    return (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(dim=1).to(logits.device)


def _uniform(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64).to(device)


def _with(pixel: Tensor, channel: int, values: Tensor) -> Tensor:
    changed = pixel.clone()
    changed[:, channel] = values
    return changed
