"""Priors over the latents z of variational autoencoders: N(0, I), a first-order process, and an autoregressive flow.

A prior has no say in the encoder or the decoder; `training.models.vae` asks it for the KL, a density and latents.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.layers.autoregressive_flow import AutoregressiveStep
from training.layers.gaussian import LOG_2_PI, kl_to_standard_normal, log_standard_normal
from training.protocols import Posterior

LARGEST = 10.0  # of -log(1 - alpha^2), where alpha is 0.99998


class Prior(nn.Module):
    """A distribution p(z) of latents `(L,)`."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats `(...)` of latents `(..., L)`."""

    @abstractmethod
    def kl(self, q: Posterior, z: Tensor) -> Tensor:
        """KL(q || p) in nats `(B, L)`, whose sum over the latents is exact or unbiased.

        Args:
            z: samples of q `(K, B, L)`, for priors without a closed form.
        """

    @abstractmethod
    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents `(B, L)` of this prior from draws of N(0, I)."""


class StandardNormal(Prior):
    """N(0, I), with the KL in closed form."""

    def log_prob(self, z: Tensor) -> Tensor:
        return log_standard_normal(z)

    def kl(self, q: Posterior, z: Tensor) -> Tensor:
        return kl_to_standard_normal(q)

    def from_noise(self, noise: Tensor) -> Tensor:
        return noise


class FirstOrder(Prior):
    """The AR(1) process z_t = alpha z_(t-1) + sqrt(1 - alpha^2) e_t, which N(0, I) is at every single t.

    A posterior that is independent over t is at least `committed_rate` away from it; see `training.models.delta_vae`.

    Args:
        steps: number n of latents in sequence, at least 2.
        width: number d of independent processes; a latent `(n d,)` holds the d values of z_1, then those of z_2, ...
        rate: the committed rate in nats; ValueError as in `process_of`.
    """

    def __init__(self, steps: int, width: int, rate: float) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.noise_variance, self.alpha = process_of(rate, steps, width)

    def log_prob(self, z: Tensor) -> Tensor:
        z = self._sequence(z)
        first = log_standard_normal(z[..., 0, :])
        standard = (z[..., 1:, :] - self.alpha * z[..., :-1, :]) / math.sqrt(self.noise_variance)
        later = log_standard_normal(standard) - 0.5 * self.width * math.log(self.noise_variance)
        return first + later.sum(dim=-1)

    def kl(self, q: Posterior, z: Tensor) -> Tensor:
        """In closed form: of z_t, the mean over q(z_(t-1)) of KL(q(z_t) || p(z_t | z_(t-1)))."""
        mean, log_variance = self._sequence(q.mean), self._sequence(q.log_variance)
        variance = torch.exp(log_variance)
        missed = torch.square(mean[:, 1:] - self.alpha * mean[:, :-1]) + self.alpha**2 * variance[:, :-1]
        ratio = (variance[:, 1:] + missed) / self.noise_variance
        later = 0.5 * (ratio - 1.0 + math.log(self.noise_variance) - log_variance[:, 1:])
        first = kl_to_standard_normal(Posterior(mean[:, :1], log_variance[:, :1]))
        return torch.cat([first, later], dim=1).flatten(1)

    def from_noise(self, noise: Tensor) -> Tensor:
        parts = list(self._sequence(noise).unbind(dim=-2))
        for t in range(1, self.steps):
            parts[t] = self.alpha * parts[t - 1] + math.sqrt(self.noise_variance) * parts[t]
        return torch.stack(parts, dim=-2).flatten(-2)

    def _sequence(self, z: Tensor) -> Tensor:
        return z.reshape(*z.shape[:-1], self.steps, self.width)


def committed_rate(alpha: float, steps: int, width: int) -> float:
    """The smallest KL in nats of an independent Gaussian posterior to `FirstOrder` (Razavi et al. 2019, equation 3).

    d/2 ((n - 2) log(1 + alpha^2) - log(1 - alpha^2)), reached by mean 0 and the variances 1 - alpha^2 at both ends and
    (1 - alpha^2) / (1 + alpha^2) between them.
    """
    return 0.5 * width * ((steps - 2) * math.log1p(alpha**2) - math.log1p(-(alpha**2)))


def process_of(rate: float, steps: int, width: int) -> tuple[float, float]:
    """1 - alpha^2 and alpha of the process with a committed rate in nats, by bisection of -log(1 - alpha^2).

    Raises:
        ValueError: the rate takes an alpha too close to 1.
    """

    def alpha_of(u: float) -> float:
        return math.sqrt(-math.expm1(-u))

    low, high = 0.0, LARGEST
    most = committed_rate(alpha_of(high), steps, width)
    if rate > most:
        raise ValueError(f"committed_rate must be at most {most:.1f} nats for {steps} x {width} latents, not {rate}")
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if committed_rate(alpha_of(middle), steps, width) < rate else (low, middle)
    return math.exp(-high), alpha_of(high)


class FlowPrior(Prior):
    """Latents whose image under an autoregressive flow is N(0, I); see `training.layers.autoregressive_flow`.

    Args:
        dim: size of z.
        steps: number of steps.
        hidden: units of the hidden layers of each step's network.
    """

    def __init__(self, dim: int, steps: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.steps: Any = nn.ModuleList(AutoregressiveStep(dim, hidden, number) for number in range(steps))

    def log_prob(self, z: Tensor) -> Tensor:
        return self._log_probs(z.reshape(-1, z.shape[-1])).sum(dim=1).reshape(z.shape[:-1])

    def kl(self, q: Posterior, z: Tensor) -> Tensor:
        """Unbiased: the entropy of q in closed form, and log p(z) at the samples."""
        entropy = 0.5 * (q.log_variance + LOG_2_PI + 1.0)
        return -entropy - self._log_probs(z.flatten(0, 1)).reshape(z.shape).mean(dim=0)

    def from_noise(self, noise: Tensor) -> Tensor:
        for step in reversed(self.steps):
            noise = step.inverse(noise)
        return noise

    def _log_probs(self, z: Tensor) -> Tensor:
        """Terms `(B, L)` of log p(z), one for each value, as every step scales a value by itself."""
        total = torch.zeros_like(z)
        for step in self.steps:
            log_scale, shift = step.scale_and_shift(z)
            z, total = z * torch.exp(log_scale) + shift, total + log_scale
        return total - 0.5 * (torch.square(z) + LOG_2_PI)
