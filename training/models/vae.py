"""Variational autoencoder.

Kingma, Welling: Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114. With q(z | x) = N(mu, diag
sigma^2), where the network outputs mu and log sigma^2, and p(z) = N(0, I), the bound (equation 10, L samples) is
    ELBO = 1/L sum_l log p(x | mu + sigma eps_l) - KL,   KL_j = (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) / 2
(appendix B). Training minimises -log p + beta sum_j max(lambda, mean_batch KL_j): free bits lambda per latent (Kingma
et al.: Improved Variational Inference with Inverse Autoregressive Flow, 2016, https://arxiv.org/abs/1606.04934,
equation 15), and beta rises linearly from 0 over the warm-up steps (Sonderby et al.: Ladder Variational Autoencoders,
2016, https://arxiv.org/abs/1602.02282). The importance-weighted bound log 1/K sum_k p(x, z_k) / q(z_k | x) is Burda,
Grosse, Salakhutdinov: Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519, equation 8.

Differs from the paper: convolutions, batch normalisation (folded into the convolutions of the shipped model), and 8-bit
likelihoods with one learnt scale instead of a second output (`training.layers.likelihoods`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from training.layers.backbone_encoder import BackboneEncoder
from training.layers.backbones import LEVELS, STRIDE, BackboneConfig
from training.layers.blocks import fold_blocks
from training.layers.checks import check_at_least, check_search, check_share
from training.layers.foreground import EncoderFeatures, ForegroundPool
from training.layers.gaussian import GaussianHeads, draw, log_density
from training.layers.likelihoods import PixelLikelihood
from training.layers.networks import ImageDecoder, ImageEncoder, NetworkConfig
from training.layers.priors import Prior, StandardNormal
from training.layers.resample import resize
from training.layers.search import SearchSpace, Turn
from training.parallel.sums import mean_of_rows
from training.protocols import Batch, Elbo, Likelihood, Loss, Posterior
from training.reference import Metric

BOUND_SAMPLES = 16  # importance samples of `log_likelihood`
VALUES_AT_ONCE = 2**23  # values that are decoded at once for bounds with many samples


@dataclass(frozen=True, kw_only=True)
class VaeConfig(NetworkConfig):
    """Configuration of `Vae`; see also `NetworkConfig`.

    Args:
        latent_dim: size of z.
        beta: weight of the KL; 1 gives the evidence lower bound.
        free_bits: nats per latent below which the KL is not reduced further.
        warmup_steps: steps over which beta rises from 0.
        samples: Monte-Carlo samples of z per image in training.
        foreground: also pool features over the item, see `training.layers.foreground` (`conv`).
        search_dim: number of principal axes of the posterior mean in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
        backbone: pretrained network that replaces the encoder's stages (`widths`, `depth`), see
            `training.layers.backbone_encoder`; requires a size that is a multiple of 32.
        decoder_size: side of the images that the likelihood is of; None for `size`. Targets are reduced to it and
            rounded to 8 bits, and decoded images are enlarged to `size`.
        keep: weight, in nats, of the error of the item's backbone features, a fraction of their variance; see
            `training.layers.backbone_encoder`.
        item_share: weight of the item's backbone features in the cosine of two search vectors.
        item_dim: number of principal axes of those features in the search vector, not whitened; None keeps all.
    """

    latent_dim: int = 128
    beta: float = 1.0
    free_bits: float = 0.0
    warmup_steps: int = 0
    samples: int = 1
    foreground: bool = False
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"
    backbone: BackboneConfig | None = None
    decoder_size: int | None = None
    keep: float = 0.0
    item_share: float = 0.0
    item_dim: int | None = None

    def __post_init__(self) -> None:
        if self.backbone is not None:
            object.__setattr__(self, "backbone", BackboneConfig.of(self.backbone))
        super().__post_init__()
        check_at_least("latent_dim", self.latent_dim, 1)
        check_at_least("samples", self.samples, 1)
        for name in ("beta", "free_bits", "warmup_steps"):
            check_at_least(name, getattr(self, name), 0)
        check_search(self.search_dim, self.latent_dim, self.whitening, self.turn)
        stages = LEVELS if self.backbone is not None else len(self.widths)
        if self.foreground and (self.network != "conv" or stages < 2):
            raise ValueError("foreground needs a conv network of at least 2 stages")
        self._check_item()

    def _check_item(self) -> None:
        check_at_least("keep", self.keep, 0)
        check_share("item_share", self.item_share)
        if self.item_dim is not None:
            check_at_least("item_dim", self.item_dim, 1)
        if self.backbone is None and (self.keep or self.item_share or self.item_dim):
            raise ValueError("keep, item_share and item_dim need a backbone, as they apply to its features")
        if self.backbone is not None and self.network != "conv":
            raise ValueError(f"network must be conv with a backbone, not {self.network!r}")

    def _check_stages(self) -> None:
        if self.backbone is None:
            super()._check_stages()
        elif self.size % STRIDE:
            raise ValueError(f"size must be a multiple of {STRIDE} with a backbone, not {self.size}")
        if not self.decoder_widths or min(self.decoder_widths) < 1:
            raise ValueError(f"decoder_widths must be positive numbers, one per stage, not {self.decoder_widths}")
        stages = len(self.decoder_widths)
        if not 1 <= self.decoded_size <= self.size or self.decoded_size % 2**stages:
            raise ValueError(
                f"decoder_size must be a multiple of {2**stages} for {stages} stages, at most the size ({self.size}), "
                f"not {self.decoded_size}"
            )

    @property
    def decoded_size(self) -> int:
        return self.decoder_size or self.size

    @property
    def size_multiple(self) -> int | None:
        return 2 ** len(self.widths) if self.network == "conv" and self.backbone is None else None


class GaussianEncoder(GaussianHeads, ImageEncoder):
    """Images and their condition to the posterior."""

    def __init__(self, config: VaeConfig, condition: int = 0) -> None:
        super().__init__(config, condition)
        self.pool = ForegroundPool(config.channels, config.widths) if config.foreground else None
        features = self.feature_dim + (self.pool.dim if self.pool is not None else 0)
        self.add_heads(features, config.latent_dim)

    def extract(self, x: Tensor, condition: Tensor | None = None) -> EncoderFeatures:
        """Encoder features of images `(B, C, S, S)` in [0, 1]."""
        if self.pool is None:
            return EncoderFeatures(self.features(x, condition), None)
        maps = self.maps(x, condition)
        pooled, foreground = self.pool(2.0 * x - 1.0, maps)
        return EncoderFeatures(torch.cat([self.flat(maps[-1]), pooled.to(maps[-1].dtype)], dim=1), foreground)


class Vae(nn.Module):
    """A variational autoencoder; the search vector is the posterior mean in its `SearchSpace`.

    Example:
        >>> vae = Vae(VaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> x = torch.rand(2, 3, 16, 16)
        >>> bound = vae.elbo(Batch(x, x))
        >>> bound.elbo.shape, bound.kl.shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    metric: Metric = "cosine"
    is_exportable = True
    encoder: GaussianEncoder | BackboneEncoder

    def __init__(self, config: VaeConfig, encoder_condition: int = 0, decoder_condition: int = 0) -> None:
        super().__init__()
        self.config: Any = config  # the subclass's own config
        self.encoder = self._build_encoder(config, encoder_condition)
        self.prior = self._build_prior(config)
        self._add_decoder(config, config.latent_dim + decoder_condition)
        search_dim = config.search_dim or config.latent_dim
        self.search = SearchSpace(config.latent_dim, search_dim, config.whitening, config.turn)
        self.item_search = None
        if isinstance(self.encoder, BackboneEncoder) and config.item_share:
            features = self.encoder.backbone.widths[-1]
            self.item_search = SearchSpace(features, config.item_dim or features, whitening=0.0)
        self.to(memory_format=torch.channels_last)

    def _build_encoder(self, config: Any, condition: int) -> GaussianEncoder | BackboneEncoder:
        return (GaussianEncoder if config.backbone is None else BackboneEncoder)(config, condition)

    def _build_prior(self, config: Any) -> Prior:
        return StandardNormal()

    def _add_decoder(self, config: Any, latent_dim: int) -> None:
        self.decoder = ImageDecoder(config, latent_dim)
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)

    @property
    def dim(self) -> int:
        return self.search.dim + (0 if self.item_search is None else self.item_search.dim)

    @property
    def backbone_network(self) -> str | None:
        return None if self.config.backbone is None else str(self.config.backbone.network)

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """See `training.protocols.BackboneModel`."""
        if isinstance(self.encoder, BackboneEncoder):
            self.encoder.load_backbone(state)

    def backbone_parameters(self) -> list[nn.Parameter]:
        return self.encoder.backbone.tuned_parameters() if isinstance(self.encoder, BackboneEncoder) else []

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior:
        """q(z | x) of images `(B, C, S, S)` in [0, 1]; a plain VAE ignores labels."""
        return self.encoder.posterior(self.extract(x, label))

    def extract(self, x: Tensor, label: Tensor | None = None) -> EncoderFeatures:
        """Encoder features of images, which the posterior heads read."""
        return self.encoder.extract(x)

    def latent(self, x: Tensor) -> Tensor:
        """The posterior mean `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1]."""
        return self._mean(self.extract(x)).to(x.dtype)

    def embed(self, x: Tensor) -> Tensor:
        features = self.extract(x)
        vectors: Tensor = self.search(self._mean(features).to(x.dtype))
        if self.item_search is None or features.item is None:
            return vectors
        share = self.config.item_share
        parts = ((1.0 - share, vectors), (share, self.item_search(features.item)))
        return torch.cat([weight**0.5 * normalize(part, dim=1) for weight, part in parts], dim=1)

    def _mean(self, encoded: EncoderFeatures) -> Tensor:
        mean: Tensor = self.encoder.mean(encoded.features)
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)`."""
        return self.picture(self.parameters_of(latent))

    def picture(self, parameters: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` of decoder outputs."""
        return resize(self.likelihood.mean(parameters), self.config.size)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.posterior(x).mean)

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of latents drawn from the prior; see `draw_latents`."""
        return self.decode(self.draw_latents(count, generator, temperature))

    def draw_latents(self, count: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Latents `(count, latent_dim)` of the prior; the temperature multiplies the noise that they are made of."""
        noise = torch.randn(count, self.config.latent_dim, generator=generator)
        return self.prior.from_noise(temperature * noise.to(self.encoder.mean.weight))

    def elbo(self, batch: Batch, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound of the targets (beta 1, no free bits) in nats per image; the KL is that of the prior.

        Args:
            samples: Monte-Carlo samples of z; None for the number in the config.
            generator: on the CPU; None uses the global one.
        """
        batch = self._reduced(batch)
        q = self.posterior(batch.x, batch.label)
        return self._bound(batch, q, draw(q, samples or self.config.samples, generator))

    def importance_weighted(
        self,
        batch: Batch,
        samples: int,
        generator: torch.Generator | None = None,
        log_prior: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The bound of Burda 2016 with K samples in nats per image `(B,)`; K = 1 is a one-sample ELBO.

        Args:
            samples: K; memory is bounded, as the samples are decoded in parts.
            log_prior: log p(z) `(K, B)` of latents `(K, B, L)`, such as `LatentFlow.log_prob`; None for the model's.
        """
        log_prior = self.prior.log_prob if log_prior is None else log_prior
        batch = self._reduced(batch)
        q = self.posterior(batch.x, batch.label)
        at_once = max(1, VALUES_AT_ONCE // self.numbers_to_decode(batch.x))
        weights = []
        for first in range(0, samples, at_once):
            z = draw(q, min(at_once, samples - first), generator)
            weights.append(self._log_p(batch, z) + log_prior(z) - log_density(z, q))
        return torch.logsumexp(torch.cat(weights), dim=0) - math.log(samples)

    def numbers_to_decode(self, x: Tensor) -> int:
        """Numbers that the likelihood of images keeps in memory per sample of their latents."""
        return len(x) * self.values(x)

    def values(self, x: Tensor) -> int:
        """Number of values per image that the likelihood of images `(B, C, S, S)` covers."""
        return int(self.config.channels * self.config.decoded_size**2)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """The importance-weighted bound with 16 samples from a fixed seed."""
        nats = self.importance_weighted(Batch(x, x), BOUND_SAMPLES, torch.Generator().manual_seed(0))
        return Likelihood(nats, exact=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective at a training step (0 is the first), and its parts, all in nats per image."""
        config, whole, batch = self.config, batch, self._reduced(batch)
        features = self.extract(batch.x, batch.label)
        q = self.encoder.posterior(features)
        z = draw(q, config.samples)
        bound = self._bound(batch, q, z)
        kl = mean_of_rows(bound.kl).clamp(min=config.free_bits).sum()
        beta = self.kl_weight(step)
        scalars = {
            "elbo": bound.elbo.mean().detach(),
            "kl": bound.kl.sum(dim=1).mean().detach(),
            "log_likelihood": bound.log_likelihood.mean().detach(),
            "beta": torch.tensor(beta),
        }
        objective = beta * kl - bound.log_likelihood.mean()
        if config.keep > 0 and isinstance(self.encoder, BackboneEncoder):
            missed = self.encoder.missed(features, whole)
            objective = objective + config.keep * missed
            scalars["missed"] = missed.detach()
        for name, (weight, nats) in self.penalties(z).items():
            objective = objective + weight * nats
            scalars[name] = nats.detach()
        return Loss(objective, scalars, q.mean, q, features.foreground)

    def kl_weight(self, step: int) -> float:
        """Weight of the KL at a training step."""
        beta: float = self.config.beta
        return beta * min(1.0, (step + 1) / self.config.warmup_steps) if self.config.warmup_steps else beta

    def penalties(self, z: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Further terms of the objective for posterior samples `(K, B, L)`, by name: weights and scalars."""
        return {}

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        """This model with batch normalisation folded in and its search spaces fitted to the images."""
        config = replace(self.config, normalisation="none")
        if config.backbone is not None:
            config = replace(config, backbone=replace(config.backbone, tuned=0))
        model = type(self)(config).to(self.encoder.mean.weight).eval()
        fold_blocks(self.eval(), model)
        features = [model.extract(batch.x) for batch in batches]
        model.search.fit(torch.cat([model._mean(each).cpu() for each in features]))
        if model.item_search is not None:
            model.item_search.fit(torch.cat([each.item.cpu() for each in features if each.item is not None]))
        return model, config

    def parameters_of(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Decoder outputs of latents `(B, latent_dim)`: the parameter of the likelihood `(B, C, S, S)`."""
        parameter: Tensor = self.decoder(z)
        return parameter

    def _bound(self, batch: Batch, q: Posterior, z: Tensor) -> Elbo:
        log_likelihood = self._log_p(batch, z).mean(dim=0)
        kl = self.prior.kl(q, z)
        return Elbo(log_likelihood - kl.sum(dim=1), log_likelihood, kl)

    @torch.no_grad()
    def _reduced(self, batch: Batch) -> Batch:
        """The batch with targets and weights resized to the decoded size."""
        side = self.config.decoded_size
        if batch.target.shape[2] == side:
            return batch
        with torch.autocast(batch.x.device.type, enabled=False):  # halves are too coarse for 8-bit values
            target = torch.round(255.0 * resize(batch.target, side)) / 255.0
            weight = None if batch.weight is None else resize(batch.weight, side)
        return batch._replace(target=target, weight=weight)

    def _log_p(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(target | z) `(K, B)` of latents `(K, B, L)`."""
        label = None if batch.label is None else batch.label.repeat(len(z))
        parameter = self.parameters_of(z.flatten(0, 1), label)
        nats: Tensor = self.likelihood(
            batch.target, parameter.reshape(*z.shape[:2], *batch.target.shape[1:]), batch.weight
        )
        return nats
