"""Beta-VAE: a variational autoencoder whose KL weighs more than 1.

Higgins et al.: beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, 2017,
https://openreview.net/forum?id=Sy2fzU9gl, equation 4: E_q log p(x | z) - beta KL(q || p). A large beta presses the
latents towards the prior's independent units, at the price of reconstruction.

Differs from the paper: the networks and likelihoods of `training.models.vae`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.models.vae import Vae, VaeConfig


@dataclass(frozen=True, kw_only=True)
class BetaVaeConfig(VaeConfig):
    """Configuration of `BetaVae`; see `VaeConfig`."""

    beta: float = 4.0


class BetaVae(Vae):
    """A VAE with a weight on its KL, and traversals of its units."""

    def traverse(self, z: Tensor, unit: int, values: Sequence[float]) -> Tensor:
        """Mean images `(len(values), C, S, S)` of one latent `(latent_dim,)` with a unit set to each value in turn."""
        if not 0 <= unit < self.config.latent_dim:
            raise ValueError(f"unit must be between 0 and {self.config.latent_dim - 1}, not {unit}")
        latents = z.repeat(len(values), 1)
        latents[:, unit] = torch.as_tensor(values, dtype=z.dtype, device=z.device)
        return self.decode(latents)
