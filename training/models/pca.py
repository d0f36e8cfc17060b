"""Principal component analysis, fitted batch by batch, with a Gaussian density.

Ross, Lim, Lin, Yang: Incremental Learning for Robust Visual Tracking, 2008, https://doi.org/10.1007/s11263-007-0075-7,
section 3.1: the SVD of the kept components scaled by their singular values, stacked on the centred batch and on the
mean's correction sqrt(nm / (n + m)) (mean_batch - mean), gives the components of all images so far.

Tipping, Bishop: Probabilistic Principal Component Analysis, 1999, https://doi.org/10.1111/1467-9868.00196: with the
leading eigenvalues l_1..l_k of the covariance and the mean s2 of the others (equation 8), x ~ N(mean, C) where C has
the eigenvalues l_i on the components and s2 elsewhere. With y_i = <component_i, x - mean> over D pixels:
-2 log p = D log 2 pi + sum log l_i + (D - k) log s2 + sum y_i^2 / l_i + (|x - mean|^2 - sum y_i^2) / s2.

Differs from the papers: keeps `oversample` times as many components while fitting, which makes the loss by truncation
negligible; the eigenvalues are those of the unbiased covariance (n - 1); the density is turned into a bound on the
probability of the 8-bit image as in `training.layers.likelihoods`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.layers.checks import check_at_least, check_image
from training.layers.likelihoods import BIN
from training.layers.search import fix_signs
from training.protocols import Likelihood
from training.reference import Metric

MIN_VARIANCE = BIN**2 / 12.0  # variance of rounding to 8 bits, the least that 8-bit images can have


@dataclass(frozen=True)
class PcaConfig:
    """Configuration of `Pca`.

    Args:
        size: side of the images in pixels.
        channels: 1 or 3.
        components: k.
        oversample: multiple of k components that is kept while fitting.
        whitening: exponent in [0, 1] of the standard deviation that each axis of the search vector is divided by.
    """

    size: int = 64
    channels: int = 3
    components: int = 64
    oversample: int = 4
    whitening: float = 0.0

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        check_at_least("components", self.components, 1)
        check_at_least("oversample", self.oversample, 1)
        if self.components >= self.channels * self.size**2:
            raise ValueError(f"components must be below {self.channels * self.size**2} (pixels), not {self.components}")
        if not 0.0 <= self.whitening <= 1.0:
            raise ValueError(f"whitening must be between 0 and 1, not {self.whitening}")


class Pca(nn.Module):
    """Principal components of images `(B, C, S, S)` in [0, 1]; call `partial_fit` with every batch first.

    Example:
        >>> pca = Pca(PcaConfig(size=8, components=4))
        >>> pca.partial_fit(torch.rand(32, 3, 8, 8))
        >>> pca.embed(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 4])
    """

    metric: Metric = "cosine"
    is_exportable = True
    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: Tensor

    def __init__(self, config: PcaConfig) -> None:
        super().__init__()
        self.config = config
        pixels = config.channels * config.size**2
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.eye(config.components, pixels))
        self.register_buffer("variances", torch.ones(config.components))
        self.register_buffer("noise", torch.ones(()))
        self._moments = _Moments.nothing(pixels)

    @property
    def dim(self) -> int:
        return self.config.components

    @torch.no_grad()
    def partial_fit(self, x: Tensor) -> None:
        """Update the fit with a batch `(B, C, S, S)` in [0, 1], on the CPU in float64."""
        config = self.config
        self._moments = self._moments.with_batch(x.flatten(1).double().cpu(), config.oversample * config.components)
        self._publish()

    def check_fitted(self) -> None:
        """Raise ValueError if it has seen too few images for the components."""
        if self._moments.count <= self.config.components:
            seen, wanted = self._moments.count, self.config.components
            raise ValueError(f"components must be below the number of training images ({seen}), not {wanted}")

    def latent(self, x: Tensor) -> Tensor:
        """Coordinates `(B, k)` of images on the components."""
        return (x.flatten(1) - self.mean) @ self.components.T

    def embed(self, x: Tensor) -> Tensor:
        return self.latent(x) * self.variances.clamp(min=MIN_VARIANCE) ** (-0.5 * self.config.whitening)

    def decode(self, latent: Tensor) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] of coordinates `(B, k)` on the components."""
        config = self.config
        flat = latent @ self.components + self.mean
        return flat.reshape(-1, config.channels, config.size, config.size).clamp(0.0, 1.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.latent(x))

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Mean images of coordinates drawn from N(0, l_i - s2)."""
        noise = temperature * torch.randn(count, self.dim, generator=generator).to(self.mean)
        return self.decode(noise * (self.variances - self.noise).clamp(min=0.0).sqrt())

    def log_density(self, x: Tensor) -> Tensor:
        """Exact log density of images as points of [0, 1]^D, `(B,)`; see the module's last equation."""
        centred = x.flatten(1).double() - self.mean.double()
        inside = torch.square(centred @ self.components.double().T)
        outside = (torch.square(centred).sum(dim=1) - inside.sum(dim=1)).clamp(min=0.0)
        variances, noise, rest = self._spectrum()
        log_det = variances.log().sum() + rest * noise.log()
        distance = (inside / variances).sum(dim=1) + outside / noise
        return -0.5 * (centred.shape[1] * math.log(2.0 * math.pi) + log_det + distance)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Lower bound in nats per 8-bit image; uniform noise over the bins costs w^2 / 24 times the trace of C^-1."""
        variances, noise, rest = self._spectrum()
        trace = (1.0 / variances).sum() + rest / noise
        pixels = len(self.mean)
        return Likelihood((self.log_density(x) + pixels * math.log(BIN) - BIN**2 / 24.0 * trace).float(), exact=False)

    def _spectrum(self) -> tuple[Tensor, Tensor, int]:
        noise = self.noise.double().clamp(min=MIN_VARIANCE)
        return torch.maximum(self.variances.double(), noise), noise, len(self.mean) - self.dim

    def _publish(self) -> None:
        """Copy the present fit into the buffers, which are all that is saved."""
        moments, k = self._moments, self.config.components
        freedom = max(moments.count - 1, 1)
        variances = torch.square(moments.singular[:k]) / freedom
        found = len(variances)
        rest = max(moments.total / freedom - float(variances.sum()), 0.0) / (len(self.mean) - k)
        self.mean.copy_(moments.mean)
        self.noise.fill_(rest)
        self.variances.zero_()[:found].copy_(variances)
        self.components.zero_()[:found].copy_(fix_signs(moments.axes[:k]))


class _Moments:
    """Mean, total squared deviation, and leading axes and singular values of the images so far."""

    def __init__(self, count: int, mean: Tensor, total: float, axes: Tensor, singular: Tensor) -> None:
        self.count = count
        self.mean = mean
        self.total = total
        self.axes = axes
        self.singular = singular

    @classmethod
    def nothing(cls, pixels: int) -> _Moments:
        empty = torch.zeros(0, dtype=torch.float64)
        return cls(0, torch.zeros(pixels, dtype=torch.float64), 0.0, torch.zeros(0, pixels, dtype=torch.float64), empty)

    def with_batch(self, batch: Tensor, keep: int) -> _Moments:
        n, m = self.count, len(batch)
        if m == 0:
            return self
        batch_mean = batch.mean(dim=0)
        centred = batch - batch_mean
        correction = math.sqrt(n * m / (n + m)) * (batch_mean - self.mean)
        rows = torch.cat([self.singular[:, None] * self.axes, centred, correction[None]])
        singular, axes = _leading(rows, keep)
        total = self.total + float(torch.square(centred).sum()) + float(torch.square(correction).sum())
        mean = self.mean + (batch_mean - self.mean) * (m / (n + m))
        return _Moments(n + m, mean, total, axes, singular)


def _leading(rows: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Singular values and right singular vectors of `rows` `(R, D)`, at most `keep`, by the smaller Gram matrix.

    For R < D, the eigendecomposition of R x R costs a fraction of the SVD of R x D. It squares the condition number, so
    directions below 1e-7 of the largest, which are rounding noise in 8-bit images, are dropped.
    """
    if len(rows) >= rows.shape[1]:
        _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
        return singular[:keep], axes[:keep]
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    squares, vectors = squares.flip(0)[:keep], vectors.flip(1)[:, :keep]
    singular = squares.clamp(min=0.0).sqrt()
    kept = singular > 1e-7 * singular[0]
    return singular[kept], (vectors[:, kept] / singular[kept]).T @ rows
