"""The search vector: latents centred, turned to their principal axes, and rescaled towards equal variance.

Latents of a Gaussian posterior have axes of very unequal spread, and the wide ones (light, background) drown the others
in a cosine. Dividing axis i by its standard deviation to the power `whitening` goes from none of that (0) to all (1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TINY = 1e-6  # of the largest variance: axes below it are rounding noise, and are not blown up


class SearchSpace(nn.Module):
    """Affine map from latents `(B, latent_dim)` to search vectors `(B, dim)`; the identity until it is fitted.

    Args:
        latent_dim: size of the latents.
        dim: how many principal axes are kept; at most `latent_dim`.
        whitening: exponent in [0, 1] on the standard deviation that each axis is divided by.
    """

    offset: Tensor
    projection: Tensor

    def __init__(self, latent_dim: int, dim: int, whitening: float) -> None:
        super().__init__()
        if not 1 <= dim <= latent_dim:
            raise ValueError(f"search_dim must be between 1 and latent_dim ({latent_dim}), not {dim}")
        if not 0.0 <= whitening <= 1.0:
            raise ValueError(f"whitening must be between 0 and 1, not {whitening}")
        self.dim = dim
        self.whitening = whitening
        self.register_buffer("offset", torch.zeros(latent_dim))
        self.register_buffer("projection", torch.eye(latent_dim)[:, :dim].contiguous())

    def fit(self, latents: Tensor) -> None:
        """Set the map from the latents `(N, latent_dim)` of the training images; N must be at least 2."""
        latents = latents.double().cpu()
        offset = latents.mean(dim=0)
        variances, axes = torch.linalg.eigh(torch.cov(latents.T).reshape(latents.shape[1], -1))
        variances, axes = variances.flip(0)[: self.dim], fix_signs(axes.T.flip(0)[: self.dim])
        scale = variances.clamp(min=TINY * float(variances.max().clamp(min=1e-12))) ** (-0.5 * self.whitening)
        self.offset.copy_(offset)
        self.projection.copy_(axes.T * scale)

    def forward(self, latents: Tensor) -> Tensor:
        return (latents - self.offset) @ self.projection


def fix_signs(axes: Tensor) -> Tensor:
    """Rows with their largest entry positive, so that one data set gives one encoder."""
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return axes * torch.where(largest < 0, -1.0, 1.0)
