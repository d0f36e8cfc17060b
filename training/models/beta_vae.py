"""Beta-VAE: a variational autoencoder whose KL has a weight above 1.

Higgins et al.: beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, 2017,
https://openreview.net/forum?id=Sy2fzU9gl, equation 4: E_q log p(x | z) - beta KL(q || p). A large beta
pushes the latents towards the independent units of the prior, at the cost of reconstruction.

Differs from the paper: uses the networks and likelihoods of `training.models.vae`.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.models.vae import Vae, VaeConfig


@dataclass(frozen=True, kw_only=True)
class BetaVaeConfig(VaeConfig):
    """Configuration of `BetaVae`; see `VaeConfig`."""

    beta: float = 4.0


class BetaVae(Vae):
    """A VAE whose KL has a weight; `training.gallery` draws traversals of its latents."""
