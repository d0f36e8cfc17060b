"""Diagonal Gaussians over latents: samples, densities and divergences, in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.layers.foreground import EncoderFeatures
from training.parallel.draws import normal
from training.parallel.sums import gathered
from training.protocols import Posterior

LOG_2_PI = math.log(2.0 * math.pi)
MAX_LOG_VARIANCE = 10.0


class GaussianHeads(nn.Module):
    """The output heads of an encoder: posterior mean and log-variance, each linear in the features."""

    mean: nn.Linear
    log_variance: nn.Linear

    def add_heads(self, features: int, latent_dim: int) -> None:
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def posterior(self, encoded: EncoderFeatures) -> Posterior:
        # Under mixed precision these are halves, which are too coarse for the KL.
        dtype = self.mean.weight.dtype
        log_variance = self.log_variance(encoded.features).to(dtype).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return Posterior(self.mean(encoded.features).to(dtype), log_variance)


def draw(q: Posterior, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Reparameterised samples `(count, B, L)`: mu + sigma eps."""
    rows, size = q.mean.shape
    noise = normal(count * rows, size, device=q.mean.device, dtype=q.mean.dtype, generator=generator)
    return q.mean + torch.exp(0.5 * q.log_variance) * noise.reshape(count, rows, size)


def kl_to_standard_normal(q: Posterior) -> Tensor:
    """KL(q || N(0, I)) per latent `(B, L)`; Kingma and Welling 2014, appendix B."""
    return 0.5 * (torch.square(q.mean) + torch.exp(q.log_variance) - 1.0 - q.log_variance)


def log_density(z: Tensor, q: Posterior) -> Tensor:
    """log q(z) `(..., B)` of latents `(..., B, L)`."""
    standard = (z - q.mean) * torch.exp(-0.5 * q.log_variance)
    return -0.5 * (torch.square(standard) + q.log_variance + LOG_2_PI).sum(dim=-1)


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) `(...)` of latents `(..., L)`."""
    return -0.5 * (torch.square(z) + LOG_2_PI).sum(dim=-1)


def mmd_to_standard_normal(z: Tensor, width: float) -> Tensor:
    """Squared maximum mean discrepancy (scalar) between the distribution of latents `(N, L)` and N(0, I).

    Gretton et al.: A Kernel Two-Sample Test, 2012, https://jmlr.org/papers/v13/gretton12a.html, equation 3, with the
    kernel k(z, z') = exp(-|z - z'|^2 / (2 width^2)): unbiased, as pairs of different rows stand for E k(z, z'), and the
    expectations over N(0, I) are in closed form; it may be below 0. One row has no pair: then it is 0.

    The rows are those of all processes that share a batch.
    """
    z = gathered(z)
    N, L = z.shape
    if N < 2:
        return 0.0 * z.sum()
    variance = width**2
    distances = torch.square(z[:, None] - z[None, :]).sum(dim=2)
    own = (torch.exp(-distances / (2.0 * variance)).sum() - N) / (N * (N - 1))
    shrunk = (variance / (variance + 1.0)) ** (L / 2)
    crossed = shrunk * torch.exp(-torch.square(z).sum(dim=1) / (2.0 * (variance + 1.0))).mean()
    mmd: Tensor = own - 2.0 * crossed + (variance / (variance + 2.0)) ** (L / 2)
    return mmd
