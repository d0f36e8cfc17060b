"""Delta-VAE: latents in sequence whose posterior cannot equal the prior, so that z always carries a rate.

Razavi, van den Oord, Poole, Vinyals: Preventing Posterior Collapse with delta-VAEs, 2019,
https://arxiv.org/abs/1901.03416. Each band t of rows of the image has its own latent z_t. The prior is a process with
memory, z_t = alpha z_(t-1) + sqrt(1 - alpha^2) e_t, and the posterior is independent over t, so that for n latents of
d numbers (equation 3)
    KL(q || p) >= d/2 ((n - 2) log(1 + alpha^2) - log(1 - alpha^2)) = delta
whatever the encoder does: training maximises the bound itself. The encoder is anti-causal (section 2.3): q(z_t | x)
reads band t and those below, and the decoder of band t reads z_1 to z_t beside the pixels already drawn. z_t can thus
add what the pixels above do not tell.

Differs from the paper: `committed_rate` is delta, from which one alpha follows for all d numbers; convolutions and
masked layers instead of attention; a latent per band of 2^stages rows; no prior fitted after training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.layers.checks import check_at_least
from training.layers.masked import MaskedLinear
from training.layers.networks import ImageDecoder
from training.layers.priors import FirstOrder, Prior, process_of
from training.layers.row_order import DownwardConv2d, DownwardConvTranspose2d, UpwardConv2d
from training.models.pixel_vae import PixelVae, PixelVaeConfig
from training.models.vae import GaussianEncoder


@dataclass(frozen=True, kw_only=True)
class DeltaVaeConfig(PixelVaeConfig):
    """Configuration of `DeltaVae`; see also `PixelVaeConfig`.

    The network must be `conv`, without a backbone, a pooled foreground or a `decoder_size`, which mix the bands.

    Args:
        latent_dim: n d numbers, d for each of the n = `side` rows of the encoder's last map.
        committed_rate: delta, nats per image that z carries at least.
    """

    committed_rate: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "conv":
            raise ValueError(f"network must be conv, as latents belong to rows, not {self.network!r}")
        for name, empty in (("backbone", None), ("decoder_size", None), ("foreground", False)):
            if getattr(self, name) != empty:
                raise ValueError(f"{name} must be {'null' if empty is None else 'false'}, as it mixes rows")
        if self.side < 2:
            raise ValueError(f"widths must leave at least 2 rows of the image, not {self.side}")
        if self.latent_dim % self.side:
            raise ValueError(f"latent_dim must be a multiple of the {self.side} rows, not {self.latent_dim}")
        check_at_least("committed_rate", self.committed_rate, 0)
        process_of(self.committed_rate, self.side, self.latent_dim // self.side)

    @property
    def size_multiple(self) -> int | None:
        return None  # maps of another size are resampled, which mixes rows


class AntiCausalEncoder(GaussianEncoder):
    """An encoder of z_t `(n d,)` that reads rows of the image from band t on."""

    convolution = UpwardConv2d

    def add_heads(self, features: int, latent_dim: int) -> None:
        self.mean, self.log_variance = MaskedLinear(features, latent_dim), MaskedLinear(features, latent_dim)
        below = rows_of_map(features, self.side)[None, :] >= bands_of_latent(latent_dim, self.side)[:, None]
        for head in (self.mean, self.log_variance):
            head.mask.copy_(below)


class CausalDecoder(ImageDecoder):
    """A decoder whose rows of band t depend on z_1 to z_t."""

    convolution = DownwardConv2d
    transposed = DownwardConvTranspose2d

    def __init__(self, config: DeltaVaeConfig, latent_dim: int, planes: int) -> None:
        super().__init__(config, latent_dim, planes)
        outputs = config.decoder_widths[0] * self.side**2
        self.start = MaskedLinear(latent_dim, outputs)
        before = bands_of_latent(latent_dim, self.side)[None, :] <= rows_of_map(outputs, self.side)[:, None]
        self.start.mask.copy_(before)


class DeltaVae(PixelVae):
    """A delta-VAE; the search vector is the posterior mean of all z_t, as for a VAE.

    Example:
        >>> vae = DeltaVae(DeltaVaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=8))
        >>> vae.prior.from_noise(torch.randn(2, 8)).shape
        torch.Size([2, 8])
    """

    def _build_encoder(self, config: Any, condition: int) -> GaussianEncoder:
        return AntiCausalEncoder(config, condition)

    def _build_prior(self, config: Any) -> Prior:
        return FirstOrder(config.side, config.latent_dim // config.side, config.committed_rate)

    def _build_decoder(self, config: Any, latent_dim: int) -> ImageDecoder:
        return CausalDecoder(config, latent_dim, config.map_width)


def rows_of_map(values: int, side: int) -> Tensor:
    """The row of each value `(C side^2,)` of a flattened map `(C, side, side)`."""
    return torch.arange(side).repeat_interleave(side).repeat(values // side**2)


def bands_of_latent(latent_dim: int, bands: int) -> Tensor:
    """The band t of each number `(n d,)` of z."""
    return torch.arange(bands).repeat_interleave(latent_dim // bands)
