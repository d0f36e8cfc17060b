"""Autoencoder, plain or denoising.

Hinton, Salakhutdinov: Reducing the Dimensionality of Data with Neural Networks, 2006,
https://doi.org/10.1126/science.1127647: minimise -log p(x | decode(encode(x))). With `noise` above 0, training adds
Gaussian noise to the input but not to the target (Vincent, Larochelle, Bengio, Manzagol: Extracting and Composing
Robust Features with Denoising Autoencoders, 2008, https://doi.org/10.1145/1390156.1390294, section 2.3).

Samples are decoded from a Gaussian that is fitted to the codes of the training images (Ghosh et al.: From Variational
to Deterministic Autoencoders, 2020, https://arxiv.org/abs/1903.12436, section 4).

Differs from the papers: convolutions, no layerwise pretraining; one Gaussian instead of the mixture of Ghosh et al.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from training.layers.blocks import fold_blocks
from training.layers.checks import check_at_least, check_search
from training.layers.likelihoods import PixelLikelihood
from training.layers.networks import ImageDecoder, ImageEncoder, NetworkConfig
from training.layers.search import SearchSpace, Turn
from training.parallel.draws import normal
from training.protocols import Batch, Loss
from training.reference import Metric


@dataclass(frozen=True, kw_only=True)
class AeConfig(NetworkConfig):
    """Configuration of `Ae`; see also `NetworkConfig`.

    Args:
        latent_dim: size of the code.
        noise: standard deviation of the input noise in training, where a channel spans [0, 1]; 0 adds none.
        search_dim: number of principal axes of the code in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    latent_dim: int = 128
    noise: float = 0.0
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("latent_dim", self.latent_dim, 1)
        check_at_least("noise", self.noise, 0)
        check_search(self.search_dim, self.latent_dim, self.whitening, self.turn)

    @property
    def size_multiple(self) -> int | None:
        return 2 ** len(self.widths) if self.network == "conv" else None


class CodeEncoder(ImageEncoder):
    """Images to codes `(B, latent_dim)`."""

    def __init__(self, config: AeConfig) -> None:
        super().__init__(config)
        self.code = nn.Linear(self.feature_dim, config.latent_dim)

    def forward(self, x: Tensor) -> Tensor:
        code: Tensor = self.code(self.features(x))
        return code.to(x.dtype)


class Ae(nn.Module):
    """An autoencoder; the search vector is the code in its `SearchSpace`.

    Example:
        >>> ae = Ae(AeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> ae.reconstruct(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    metric: Metric = "cosine"
    is_exportable = True
    code_mean: Tensor
    code_factor: Tensor

    def __init__(self, config: AeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CodeEncoder(config)
        self.decoder = ImageDecoder(config, config.latent_dim)
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)
        search_dim = config.search_dim or config.latent_dim
        self.search = SearchSpace(config.latent_dim, search_dim, config.whitening, config.turn)
        self.register_buffer("code_mean", torch.zeros(config.latent_dim))
        self.register_buffer("code_factor", torch.eye(config.latent_dim))
        self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        return self.search.dim

    def latent(self, x: Tensor) -> Tensor:
        """Codes `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1]."""
        code: Tensor = self.encoder(x)
        return code

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.latent(x))
        return vectors

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of codes `(B, latent_dim)`."""
        return self.likelihood.mean(self.decoder(latent))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decode(self.latent(x))

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of codes drawn from the Gaussian of the training codes."""
        noise = temperature * torch.randn(count, self.config.latent_dim, generator=generator).to(self.code_mean)
        return self.decode(self.code_mean + noise @ self.code_factor.T)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Negative log-likelihood of the targets given the codes, in nats per image."""
        x = batch.x
        if self.config.noise and self.training:
            x = x + self.config.noise * normal(len(x), *x.shape[1:], device=x.device, dtype=x.dtype)
        latent = self.latent(x)
        parameter = self.decoder(latent)
        nats = self.likelihood(batch.target, parameter, batch.weight).mean()
        error = torch.square(self.likelihood.mean(parameter) - batch.target).mean()
        return Loss(-nats, {"log_likelihood": nats.detach(), "squared_error": error.detach()}, latent)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Ae, Any]:
        """This model with batch normalisation folded in, and the search space and the Gaussian of codes fitted."""
        config = replace(self.config, normalisation="none")
        model = Ae(config).to(self.code_mean).eval()
        fold_blocks(self.eval(), model)
        codes = torch.cat([model.latent(batch.x).cpu() for batch in batches])
        model.search.fit(codes)
        model.code_mean.copy_(codes.mean(dim=0))
        covariance = torch.cov(codes.T.double()).reshape(config.latent_dim, -1)
        variances, axes = torch.linalg.eigh(covariance)
        model.code_factor.copy_(axes * variances.clamp(min=0.0).sqrt())
        return model, config
