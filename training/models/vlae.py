"""Variational lossy autoencoder: a learnt prior of z, and a decoder that sees no further than a window.

Chen et al.: Variational Lossy Autoencoder, 2017, https://arxiv.org/abs/1611.02731. A decoder that sees only the pixels
near the one it draws leaves to z what spans more than its window (section 3.1, `receptive_field`), and p(z) is the
image of N(0, I) under an autoregressive flow u = f(z) that is learnt with the rest (section 3.2):
    log p(z) = log N(f(z); 0, I) + log |det df / dz|
As an inverse autoregressive flow of the same depth after the encoder, it costs the same to train, and the encoder is
simpler than with one. The flow is evaluated in one pass; only sampling takes one pass per latent.

Differs from the paper: the window is the square of `training.models.pixel_vae`; no labels, and no VGG-style or
DenseNet blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.layers.checks import check_at_least
from training.layers.priors import FlowPrior, Prior
from training.models.pixel_vae import PixelVae, PixelVaeConfig


@dataclass(frozen=True, kw_only=True)
class VlaeConfig(PixelVaeConfig):
    """Configuration of `Vlae`; see also `PixelVaeConfig`, whose `receptive_field` is the decoder's window.

    Args:
        flow_steps: number of steps of the prior's flow.
        flow_hidden: units of the hidden layers of each step's network.
    """

    flow_steps: int = 2
    flow_hidden: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flow_hidden", tuple(self.flow_hidden))  # JSON and YAML give lists
        super().__post_init__()
        check_at_least("latent_dim", self.latent_dim, 2)
        check_at_least("flow_steps", self.flow_steps, 1)
        if not self.flow_hidden or min(self.flow_hidden) < 1:
            raise ValueError(f"flow_hidden must be positive numbers of units, one per layer, not {self.flow_hidden}")


class Vlae(PixelVae):
    """A VLAE; the search vector is the posterior mean, as for a VAE.

    Example:
        >>> import torch
        >>> vae = Vlae(VlaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> vae.prior.log_prob(torch.zeros(2, 4)).shape
        torch.Size([2])
    """

    def _build_prior(self, config: Any) -> Prior:
        return FlowPrior(config.latent_dim, config.flow_steps, config.flow_hidden)
