"""PixelVAE: a VAE with an autoregressive decoder of limited receptive field.

Gulrajani et al.: PixelVAE: A Latent Variable Model for Natural Images, 2017, https://arxiv.org/abs/1611.05013:
    ELBO = E_q sum_i log p(x_i | x_1 .. x_(i-1), z) - KL(q(z | x) || N(0, I))
with the conditional factors from a gated PixelCNN, conditioned on features that z is decoded to. What the decoder can
predict from neighbouring pixels z need not encode. `receptive_field` is the side of the square whose earlier part a
pixel depends on (Chen et al.: Variational Lossy Autoencoder, 2017, https://arxiv.org/abs/1611.02731, section 3.2): 1
depends on no pixel, which is a plain VAE with this likelihood; 3 depends on four pixels; above twice the side of the
image it depends on all earlier pixels. In docs/studies/receptive-field.md z holds most at 1; 3 takes three fifths of
that, and larger fields take no more. `free_bits` and `warmup_steps`, as in `vae`, prevent posterior collapse by
committing z to a rate (compared by Razavi et al.: Preventing Posterior Collapse with delta-VAEs, 2019,
https://arxiv.org/abs/1901.03416).

Differs from the paper: one stochastic layer; the receptive field grows by dilation, with one layer per doubling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor, nn

from training.layers.autoregressive import to_input
from training.layers.causal import Scope
from training.layers.checks import check_at_least
from training.layers.distributions import PixelKind, build_distribution
from training.layers.gated import GatedNetwork, Head, gate
from training.layers.networks import ImageDecoder
from training.layers.raster import Drawing, RasterOutput, predict
from training.layers.resample import resize
from training.models.vae import Vae, VaeConfig
from training.protocols import Batch


@dataclass(frozen=True, kw_only=True)
class PixelVaeConfig(VaeConfig):
    """Configuration of `PixelVae`; see also `VaeConfig`, whose `scale` must be null.

    Args:
        likelihood: see `training.layers.distributions`.
        mixtures: number of components of `logistic-mixture`.
        receptive_field: 1, or a power of two plus one: 3, 5, 9, 17, ...
        map_width: features per pixel that z is decoded to.
        pixel_width: features of the PixelCNN's streams.
        head: features of the PixelCNN before the last layer.
    """

    LIKELIHOODS: ClassVar[tuple[str, ...]] = get_args(PixelKind)

    size: int = 32
    widths: tuple[int, ...] = (32, 64, 128)
    decoder_widths: tuple[int, ...] = (128, 64, 32)
    likelihood: PixelKind = "logistic-mixture"  # type: ignore[assignment]
    mixtures: int = 5
    receptive_field: int = 9
    map_width: int = 32
    pixel_width: int = 32
    head: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            raise ValueError("scale must be null, as each pixel has its own")
        field = self.receptive_field
        if field != 1 and (field < 3 or (field - 1) & (field - 2)):
            raise ValueError(f"receptive_field must be 1, or a power of two plus one (3, 5, 9, 17, ...), not {field}")
        if field > 4 * self.size:
            raise ValueError(f"receptive_field must be below 4 times size ({self.size}), not {field}")
        check_at_least("mixtures", self.mixtures, 1)
        check_at_least("map_width", self.map_width, 1)
        check_at_least("pixel_width", self.pixel_width, self.channels)
        check_at_least("head", self.head, self.channels)


class PixelVae(Vae):
    """A PixelVAE; as for a VAE, the search vector is the posterior mean in its `SearchSpace`.

    Example:
        >>> vae = PixelVae(PixelVaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> vae.decode(torch.zeros(2, 4)).shape
        torch.Size([2, 3, 16, 16])
    """

    def _add_decoder(self, config: Any, latent_dim: int) -> None:
        self.decoder = self._build_decoder(config, latent_dim)
        self.distribution = build_distribution(config.likelihood, config.channels, config.mixtures)
        self.network: Any = build_network(
            config.receptive_field, config.channels, self.distribution.parameters, config.pixel_width, config.head,
            groups=config.channels if self.distribution.grouped else 0, condition=config.map_width,
        )  # fmt: skip

    def _build_decoder(self, config: Any, latent_dim: int) -> ImageDecoder:
        return ImageDecoder(config, latent_dim, planes=config.map_width)

    def numbers_to_decode(self, x: Tensor) -> int:
        at_a_pixel: int = max(self.distribution.parameters, 4 * self.config.pixel_width)
        return len(x) * int(self.config.decoded_size) ** 2 * at_a_pixel

    def decode(self, latent: Tensor) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] of latents; each pixel takes its most probable value given those before."""
        return self._draw(latent, None, 0.0)

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1]; the temperature applies to latents and pixels."""
        return self._draw(self.draw_latents(count, generator, temperature), generator, temperature)

    def _draw(self, latent: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        config = self.config
        blank = latent.new_zeros(len(latent), config.channels, config.decoded_size, config.decoded_size)
        drawing = Drawing(self.network, self.distribution, to_input, temperature)
        return resize(drawing.draw(blank, None, self.decoder(latent), generator), config.size)

    def _log_p(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(target | z) `(K, B)` of latents `(K, B, L)`; pixels of weight 0 are hidden from the network."""
        target = batch.target if batch.weight is None else batch.target * (batch.weight > 0)
        images = target.repeat(len(z), 1, 1, 1)
        parameters = predict(self.network, to_input(images), self.decoder(z.flatten(0, 1))).parameters
        nats = self.distribution.log_prob(images, parameters.to(z.dtype)).reshape(*z.shape[:2], *images.shape[2:])
        if batch.weight is not None:
            nats = nats * batch.weight[:, 0]
        return nats.sum(dim=(2, 3))


def build_network(
    receptive_field: int, channels: int, parameters: int, width: int, head: int, *, groups: int, condition: int
) -> nn.Module:
    """A network with a given receptive field: one layer of kernel 3, and one more per doubling of the field.

    The first layer reaches one pixel back; dilations of 1, 2, 4, ... extend it without gaps.
    """
    if receptive_field == 1:
        return PointNetwork(parameters, width, head, condition)
    dilations = [2**k for k in range((receptive_field - 1).bit_length() - 2)]
    return GatedNetwork(channels + 1, parameters, width, 3, dilations, head, groups=groups, condition=condition)


class PointNetwork(nn.Module):
    """A `training.layers.raster.RasterNetwork` that only depends on the condition."""

    follows_cursor = True

    def __init__(self, parameters: int, width: int, head: int, condition: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(condition, 2 * width, 1)
        self.head = Head(width, head, parameters, groups=0)

    def conditions(self, condition: Tensor | None) -> list[Tensor]:
        if condition is None:
            raise ValueError("a receptive field of 1 needs a condition")
        return [self.project(condition)]

    def vertical(self, at: Scope, conditions: list[Tensor]) -> None:
        return None

    def horizontal(self, at: Scope, vertical: None, conditions: list[Tensor]) -> RasterOutput:
        output: RasterOutput = self.head(at, gate(at.crop(conditions[0])))
        return output
