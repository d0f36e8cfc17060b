"""Convolutional variational autoencoder.

Kingma, Welling: Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114. With q(z | x) = N(mu, diag
sigma^2), the network giving mu and log sigma^2, and p(z) = N(0, I), the bound (equation 10, L samples) is
    ELBO = 1/L sum_l log p(x | mu + sigma eps_l) - KL,   KL_j = (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) / 2
(appendix B). Training minimises -log p + beta sum_j max(lambda, mean_batch KL_j): free bits lambda per latent (Kingma
et al.: Improved Variational Inference with Inverse Autoregressive Flow, 2016, https://arxiv.org/abs/1606.04934,
equation 15), beta rising linearly from 0 over the warm-up steps (Sonderby et al.: Ladder Variational Autoencoders,
2016, https://arxiv.org/abs/1602.02282). The importance-weighted bound log 1/K sum_k p(x, z_k) / q(z_k | x) is Burda,
Grosse, Salakhutdinov: Importance Weighted Autoencoders, 2016, https://arxiv.org/abs/1509.00519, equation 8.

Differs from the paper: convolutions, batch normalisation (folded into the convolutions of the shipped model), 8-bit
likelihoods with a learnt scale instead of a second output (`training.likelihoods`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from training.encoder import Likelihood
from training.likelihoods import LikelihoodKind, PixelLikelihood
from training.models.blocks import Block, fold_blocks
from training.models.checks import check_at_least, check_image
from training.models.protocols import Elbo, Loss, Posterior
from training.models.search import SearchSpace
from training.reference import Metric

Normalisation = Literal["batch", "none"]
MAX_LOG_VARIANCE = 10.0
BOUND_SAMPLES = 16  # importance samples of `log_likelihood`


@dataclass(frozen=True)
class VaeConfig:
    """Configuration of `Vae`.

    Args:
        size: side of the images in pixels, a multiple of 2^len(widths).
        channels: 1 or 3.
        widths: channels of the encoder's stages, each of which halves the side.
        decoder_widths: channels of the decoder's stages from coarse to fine, as many as `widths`.
        latent_dim: size of z.
        likelihood: `gaussian` or `logistic`, see `training.likelihoods`.
        scale: of the likelihood, where a channel spans [0, 1]; None learns one per channel.
        beta: weight of the KL; 1 is the bound.
        free_bits: nats per latent below which the KL is not reduced further.
        warmup_steps: steps over which beta rises from 0.
        samples: Monte-Carlo samples of z per image in training.
        normalisation: `batch` or `none`; the model that training ships always has `none`.
        search_dim: principal axes of the posterior mean in the search vector; None keeps all.
        whitening: see `training.models.search`.
    """

    size: int = 64
    channels: int = 3
    widths: tuple[int, ...] = (32, 64, 128, 256)
    decoder_widths: tuple[int, ...] = (256, 128, 64, 32)
    latent_dim: int = 128
    likelihood: LikelihoodKind = "gaussian"
    scale: float | None = None
    beta: float = 1.0
    free_bits: float = 0.0
    warmup_steps: int = 0
    samples: int = 1
    normalisation: Normalisation = "batch"
    search_dim: int | None = None
    whitening: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))  # JSON and YAML give lists
        object.__setattr__(self, "decoder_widths", tuple(self.decoder_widths))
        check_image(self.size, self.channels)
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths must be positive numbers of channels, one per stage, not {self.widths}")
        if len(self.decoder_widths) != len(self.widths) or min(self.decoder_widths) < 1:
            raise ValueError(f"decoder_widths must be {len(self.widths)} positive numbers, not {self.decoder_widths}")
        if self.size % 2 ** len(self.widths):
            stages = len(self.widths)
            raise ValueError(f"size must be a multiple of {2**stages} for {stages} stages, not {self.size}")
        if self.likelihood not in get_args(LikelihoodKind):
            raise ValueError(f"likelihood must be gaussian or logistic, not {self.likelihood!r}")
        if self.normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation must be batch or none, not {self.normalisation!r}")
        check_at_least("latent_dim", self.latent_dim, 1)
        check_at_least("samples", self.samples, 1)
        for name in ("beta", "free_bits", "warmup_steps"):
            check_at_least(name, getattr(self, name), 0)
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")
        if self.search_dim is not None and not 1 <= self.search_dim <= self.latent_dim:
            raise ValueError(f"search_dim must be between 1 and latent_dim ({self.latent_dim}), not {self.search_dim}")
        if not 0.0 <= self.whitening <= 1.0:
            raise ValueError(f"whitening must be between 0 and 1, not {self.whitening}")


class VaeEncoder(nn.Module):
    """Images `(B, C, S, S)` to the posterior; 3 x 3 convolutions of stride 2, which are cheap on a CPU."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        inputs = (config.channels, *config.widths[:-1])
        normalise = config.normalisation == "batch"
        self.stages = nn.Sequential()
        for before, after in zip(inputs, config.widths, strict=True):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=not normalise)
            self.stages.append(Block(convolution, normalise))
        side = config.size // 2 ** len(config.widths)
        self.mean = nn.Linear(config.widths[-1] * side**2, config.latent_dim)
        self.log_variance = nn.Linear(config.widths[-1] * side**2, config.latent_dim)

    def features(self, x: Tensor) -> Tensor:
        h: Tensor = self.stages(2.0 * x - 1.0)
        return h.flatten(1)

    def forward(self, x: Tensor) -> Posterior:
        h = self.features(x)
        # Mixed precision gives halves here, in which the KL would lose its digits.
        log_variance = self.log_variance(h).to(x.dtype).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        return Posterior(self.mean(h).to(x.dtype), log_variance)


class VaeDecoder(nn.Module):
    """Latents `(B, L)` to the likelihood's means `(B, C, S, S)`, which training may take a little out of [0, 1]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.side = config.size // 2 ** len(config.widths)
        normalise = config.normalisation == "batch"
        widths = config.decoder_widths
        self.start = nn.Linear(config.latent_dim, widths[0] * self.side**2)
        self.stages = nn.Sequential()
        for before, after in pairwise(widths):
            convolution = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=not normalise)
            self.stages.append(Block(convolution, normalise))
        self.out = nn.ConvTranspose2d(widths[-1], config.channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = nn.functional.silu(self.start(z)).reshape(len(z), -1, self.side, self.side)
        out: Tensor = self.out(self.stages(h.contiguous(memory_format=torch.channels_last)))
        return 0.5 + 0.5 * out.to(z.dtype)


class Vae(nn.Module):
    """A variational autoencoder; the search vector is the posterior mean in its `SearchSpace`.

    Example:
        >>> vae = Vae(VaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> bound = vae.elbo(torch.rand(2, 3, 16, 16))
        >>> bound.elbo.shape, bound.kl.shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    metric: Metric = "cosine"
    is_exportable = True  # to ONNX

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = VaeEncoder(config)
        self.decoder = VaeDecoder(config)
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)
        self.search = SearchSpace(config.latent_dim, config.search_dim or config.latent_dim, config.whitening)
        self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        return self.search.dim

    def posterior(self, x: Tensor) -> Posterior:
        """q(z | x) of images `(B, C, S, S)` in [0, 1]."""
        q: Posterior = self.encoder(x.contiguous(memory_format=torch.channels_last))
        return q

    def embed(self, x: Tensor) -> Tensor:
        h = self.encoder.features(x.contiguous(memory_format=torch.channels_last))
        vectors: Tensor = self.search(self.encoder.mean(h))
        return vectors

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)`."""
        mean: Tensor = self.decoder(latent)
        return mean.clamp(0.0, 1.0)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.posterior(x).mean)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of latents drawn from N(0, I)."""
        z = torch.randn(count, self.config.latent_dim, generator=generator)
        return self.decode(z.to(self.encoder.mean.weight))

    def elbo(self, x: Tensor, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound (beta 1, no free bits) in nats per image, with the analytic KL.

        Args:
            x: images `(B, C, S, S)`, multiples of 1/255 in [0, 1].
            samples: Monte-Carlo samples of z; None takes the config's.
            generator: on the CPU; None draws from the global one.
        """
        q = self.posterior(x)
        count = samples or self.config.samples
        z = draw(q, count, generator)
        log_likelihood = self._log_p(x, z).mean(dim=0)
        kl = kl_to_standard_normal(q)
        return Elbo(log_likelihood - kl.sum(dim=1), log_likelihood, kl)

    def importance_weighted(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """The bound of Burda 2016 with K samples, nats per image `(B,)`; K = 1 is a one-sample ELBO."""
        q = self.posterior(x)
        z = draw(q, samples, generator)
        log_p_z = -0.5 * (torch.square(z) + math.log(2.0 * math.pi)).sum(dim=-1)
        noise = (z - q.mean) * torch.exp(-0.5 * q.log_variance)
        log_q_z = -0.5 * (torch.square(noise) + q.log_variance + math.log(2.0 * math.pi)).sum(dim=-1)
        return torch.logsumexp(self._log_p(x, z) + log_p_z - log_q_z, dim=0) - math.log(samples)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """The importance-weighted bound with 16 samples, always the same ones."""
        nats = self.importance_weighted(x, BOUND_SAMPLES, torch.Generator().manual_seed(0))
        return Likelihood(nats, exact=False)

    def loss(self, x: Tensor, step: int) -> Loss:
        """The objective at a training step (0 is the first), and its parts, all in nats per image."""
        config = self.config
        bound = self.elbo(x)
        kl = bound.kl.mean(dim=0).clamp(min=config.free_bits).sum()
        beta = config.beta * min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else config.beta
        objective = beta * kl - bound.log_likelihood.mean()
        scalars = {
            "elbo": bound.elbo.mean().detach(),
            "kl": bound.kl.sum(dim=1).mean().detach(),
            "log_likelihood": bound.log_likelihood.mean().detach(),
            "beta": torch.tensor(beta),
        }
        return Loss(objective, scalars)

    @torch.no_grad()
    def finish(self, batches: Iterable[Tensor]) -> tuple[Vae, VaeConfig]:
        """This model without batch normalisation, its search space fitted to the posterior means of the images."""
        config = replace(self.config, normalisation="none")
        model = Vae(config).to(self.encoder.mean.weight).eval()
        fold_blocks(self.eval(), model)
        model.search.fit(torch.cat([model.posterior(x).mean.cpu() for x in batches]))
        return model, config

    def _log_p(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) `(S, B)` of images `(B, C, S, S)` and latents `(S, B, L)`."""
        mean: Tensor = self.decoder(z.flatten(0, 1))
        nats: Tensor = self.likelihood(x, mean.reshape(*z.shape[:2], *x.shape[1:]))
        return nats


def draw(q: Posterior, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Reparameterised samples `(count, B, L)`: mu + sigma eps."""
    device = q.mean.device if generator is None else generator.device
    noise = torch.randn((count, *q.mean.shape), generator=generator, dtype=q.mean.dtype, device=device)
    return q.mean + torch.exp(0.5 * q.log_variance) * noise.to(q.mean.device)


def kl_to_standard_normal(q: Posterior) -> Tensor:
    """KL(q || N(0, I)) in nats per latent `(B, L)`, appendix B of the paper."""
    return 0.5 * (torch.square(q.mean) + torch.exp(q.log_variance) - 1.0 - q.log_variance)
