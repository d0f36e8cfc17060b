"""The search vector: latents centred, turned to their principal axes, and rescaled towards equal variance.

Latents of a Gaussian posterior have axes of very unequal spread, and the wide ones (light, background) drown the others
in a cosine. Dividing axis i by its standard deviation to the power `whitening` goes from none of that (0) to all (1).
`zca` turns the axes back afterwards (Kessy, Lewin, Strimmer: Optimal Whitening and Decorrelation, 2018,
https://arxiv.org/abs/1512.00809, section 3), so that each number stays next to the latent that it came from; distances
are those of `pca` while no axis is left out.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Turn = Literal["pca", "zca"]
TINY = 1e-6  # of the largest variance: axes below it are rounding noise, and are not blown up


class SearchSpace(nn.Module):
    """Affine map from latents `(B, latent_dim)` to search vectors `(B, dim)`; the identity until it is fitted.

    Args:
        latent_dim: size of the latents.
        dim: how many principal axes are kept; at most `latent_dim`.
        whitening: exponent in [0, 1] on the standard deviation that each axis is divided by.
        turn: `pca`, or `zca`, whose vectors have the latents' size and lie in the kept axes.
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
        """Set the map from the latents `(N, latent_dim)` of the training images; N must be at least 2."""
        latents = latents.double().cpu()
        self.fit_moments(latents.mean(dim=0), torch.cov(latents.T).reshape(latents.shape[1], -1))

    def fit_moments(self, mean: Tensor, covariance: Tensor) -> None:
        """Set the map from the mean `(latent_dim,)` and the covariance of the latents, float64."""
        variances, axes = torch.linalg.eigh(covariance)
        variances, axes = variances.flip(0)[: self.kept], fix_signs(axes.T.flip(0)[: self.kept])
        scale = variances.clamp(min=TINY * float(variances.max().clamp(min=1e-12))) ** (-0.5 * self.whitening)
        self.offset.copy_(mean)
        self.projection.copy_(axes.T * scale if self.turn == "pca" else (axes.T * scale) @ axes)

    def forward(self, latents: Tensor) -> Tensor:
        return (latents - self.offset) @ self.projection


def fix_signs(axes: Tensor) -> Tensor:
    """Rows with their largest entry positive, so that one data set gives one encoder."""
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)
