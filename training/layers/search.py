"""The search vector: latents centred, rotated to their principal axes, and partly whitened.

The principal axes of Gaussian latents have very unequal variances, and the wide ones (light, background) dominate a
cosine. Axis i is divided by its standard deviation to the power `whitening`: 0 does not whiten, 1 whitens fully. `zca`
rotates the axes back afterwards (Kessy, Lewin, Strimmer: Optimal Whitening and Decorrelation, 2018,
https://arxiv.org/abs/1512.00809, section 3), so that each number stays close to the latent that it came from; distances
equal those of `pca` as long as all axes are kept.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Turn = Literal["pca", "zca"]
TINY = 1e-6  # fraction of the largest variance; axes below are rounding noise and are not amplified


class SearchSpace(nn.Module):
    """Affine map from latents `(B, latent_dim)` to search vectors `(B, dim)`; identity until it is fitted.

    Args:
        latent_dim: size of the latents.
        dim: number of principal axes to keep, at most `latent_dim`.
        whitening: exponent in [0, 1] of the standard deviation that each axis is divided by.
        turn: `pca`, or `zca`, whose vectors have `latent_dim` numbers and lie in the span of the kept axes.
    """

    offset: Tensor
    projection: Tensor

    def __init__(self, latent_dim: int, dim: int, whitening: float, turn: Turn = "pca") -> None:
        super().__init__()
        if not 1 <= dim <= latent_dim:
            raise ValueError(f"search_dim must be between 1 and latent_dim ({latent_dim}), not {dim}")
        if not 0.0 <= whitening <= 1.0:
            raise ValueError(f"whitening must be between 0 and 1, not {whitening}")
        if turn not in get_args(Turn):
            raise ValueError(f"turn must be pca or zca, not {turn!r}")
        self.kept = dim
        self.dim = dim if turn == "pca" else latent_dim
        self.whitening = whitening
        self.turn = turn
        self.register_buffer("offset", torch.zeros(latent_dim))
        self.register_buffer("projection", torch.eye(latent_dim)[:, : self.dim].contiguous())

    def fit(self, latents: Tensor) -> None:
        """Fit the map to the latents `(N, latent_dim)` of the training images, N at least 2."""
        latents = latents.double().cpu()
        self.fit_moments(latents.mean(dim=0), torch.cov(latents.T).reshape(latents.shape[1], -1))

    def fit_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Fit the map to the mean `(latent_dim,)` and the covariance of the latents, float64."""
        variances, axes = torch.linalg.eigh(covariance)
        variances, axes = variances.flip(0)[: self.kept], fix_signs(axes.T.flip(0)[: self.kept])
        scale = variances.clamp(min=TINY * float(variances.max().clamp(min=1e-12))) ** (-0.5 * self.whitening)
        self.offset.copy_(mean)
        self.projection.copy_(axes.T * scale if self.turn == "pca" else (axes.T * scale) @ axes)

    def forward(self, latents: Tensor) -> Tensor:
        return (latents - self.offset) @ self.projection


class Moments:
    """Mean and covariance of features in one pass, float64 on the CPU.

    Chan, Golub, LeVeque: Algorithms for Computing the Sample Variance, 1983, https://doi.org/10.2307/2683386.
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64)
        self.scatter: Any = 0.0

    def add(self, batch: Tensor) -> None:
        """Add features `(B, F)`."""
        rows = batch.double().cpu()
        mean = rows.mean(dim=0)
        shift, total = mean - self.mean, self.count + len(rows)
        centred = rows - mean
        self.scatter = self.scatter + centred.T @ centred + torch.outer(shift, shift) * self.count * len(rows) / total
        self.mean = self.mean + shift * len(rows) / total
        self.count = total

    def covariance(self) -> Tensor:
        """Unbiased covariance `(F, F)`."""
        covariance: Tensor = self.scatter / (self.count - 1)
        return covariance


def fix_signs(axes: Tensor) -> Tensor:
    """Rows with their largest entry positive, so that the result for a data set is unique."""
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)
