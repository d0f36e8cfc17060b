"""VQ-VAE: an autoencoder whose latent is a map of codes from a learnt codebook.

van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937,
equation 3: L = -log p(x | z_q(x)) + |sg[z_e(x)] - e|^2 + beta |z_e(x) - sg[e]|^2; the quantiser is
`training.layers.quantise`. With a prior p over maps, log p(x | z_q(x)) + log p(z_q(x)) bounds log p(x) (section 3.2).

Differs from the paper: the last two terms, which are means over the map, are multiplied by half the number of values in
an image. This weights them against nats as against a squared error of unit variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from training.layers.blocks import fold_blocks
from training.layers.checks import check_at_least, check_choice, check_search
from training.layers.code_prior import PixelPrior
from training.layers.codes import CodeDescriptor, CodePrior, fit_codes
from training.layers.labels import Labels
from training.layers.likelihoods import PixelLikelihood
from training.layers.networks import NetworkConfig, decoder_stages, encoder_stages
from training.layers.quantise import Quantised, Update, VectorQuantiser
from training.layers.search import SearchSpace, Turn
from training.protocols import Batch, Likelihood, Loss
from training.reference import Metric

PriorKind = Literal["counts", "pixel-cnn"]


@dataclass(frozen=True, kw_only=True)
class VqVaeConfig(NetworkConfig):
    """Configuration of `VqVae`; see also `NetworkConfig`, of which it only supports the `conv` network.

    Args:
        codes: K, size of the codebook.
        code_dim: D, size of a code vector.
        update: how the codebook learns: `ema` by moving averages, `loss` by gradient.
        decay: decay of the moving averages.
        commitment: beta.
        restart: see `VectorQuantiser`.
        pool: cells along each side of the grid over which codes are pooled for the search vector.
        histogram_weight: weight of the code histogram in the search vector; the pooled part has weight 1.
        prior: prior over maps: `counts`, frequencies of codes at each position, or `pixel-cnn`, a network that is
            fitted in a second stage.
        prior_width, prior_layers: size of that network, see `training.layers.code_prior`.
        classes: number of labels that condition that network; None for no condition.
        search_dim: number of principal axes in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    widths: tuple[int, ...] = (64, 128, 128)
    decoder_widths: tuple[int, ...] = (128, 128, 64)
    codes: int = 256
    code_dim: int = 32
    update: Update = "ema"
    decay: float = 0.99
    commitment: float = 0.25
    restart: float = 0.1
    pool: int = 4
    histogram_weight: float = 0.5
    prior: PriorKind = "counts"
    prior_width: int = 64
    prior_layers: int = 4
    classes: int | None = None
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "conv":
            raise ValueError(f"network must be conv, as codes need a feature map, not {self.network!r}")
        check_at_least("codes", self.codes, 2)
        check_at_least("code_dim", self.code_dim, 1)
        check_choice("update", self.update, get_args(Update))
        if not 0.0 < self.decay < 1.0:
            raise ValueError(f"decay must lie between 0 and 1, not {self.decay}")
        check_at_least("commitment", self.commitment, 0)
        check_at_least("restart", self.restart, 0)
        check_at_least("pool", self.pool, 1)
        check_at_least("histogram_weight", self.histogram_weight, 0)
        check_choice("prior", self.prior, get_args(PriorKind))
        check_at_least("prior_width", self.prior_width, 1)
        check_at_least("prior_layers", self.prior_layers, 0)
        if self.classes is not None:
            check_at_least("classes", self.classes, 2)
            if self.prior == "counts":
                raise ValueError("classes must be null for a prior of counts, which cannot be conditioned")
        self._check_maps()

    def _check_maps(self) -> None:
        if self.side % self.pool:
            raise ValueError(f"pool must divide the side of the code map ({self.side}), not be {self.pool}")
        check_search(self.search_dim, self.code_dim * self.pool**2 + self.codes, self.whitening, self.turn)


class VqVae(nn.Module):
    """A VQ-VAE; its latents are codes `(B, h, w)` int64.

    Example:
        >>> vq = VqVae(VqVaeConfig(size=16, widths=(8, 8), decoder_widths=(8, 8), codes=16, code_dim=4, pool=2))
        >>> vq.codes(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 4, 4])
    """

    metric: Metric = "cosine"
    is_exportable = True

    def __init__(self, config: VqVaeConfig) -> None:
        super().__init__()
        self.config = config
        normalise = config.normalisation == "batch"
        last, first = config.widths[-1], config.decoder_widths[0]
        self.encoder = encoder_stages(config.channels, config.widths, config.depth, normalise)
        self.to_code = nn.Conv2d(last, config.code_dim, 1)
        self.quantiser = build_quantiser(config)
        self.from_code = nn.Conv2d(config.code_dim, first, 3, padding=1)
        self.decoder = decoder_stages(first, config.decoder_widths[1:], config.decoder_depth, normalise)
        self.out = nn.ConvTranspose2d(config.decoder_widths[-1], config.channels, 4, stride=2, padding=1)
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)
        self.descriptor = CodeDescriptor(
            config.codes, config.code_dim, config.side, config.pool, config.histogram_weight
        )
        self.prior = CodePrior(config.codes, config.side)
        self.pixel_prior = build_prior(config, config.side, 0)
        self.labels = Labels(config.classes)
        search_dim = config.search_dim or self.descriptor.dim
        self.search = SearchSpace(self.descriptor.dim, search_dim, config.whitening, config.turn)
        self.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        return self.search.dim

    @property
    def classes(self) -> int | None:
        return self.labels.classes

    @property
    def has_second_stage(self) -> bool:
        return self.config.prior == "pixel-cnn"

    def quantise(self, x: Tensor) -> Quantised:
        """The quantised map of images `(B, C, S, S)` in [0, 1]."""
        h = self.encoder((2.0 * x - 1.0).contiguous(memory_format=torch.channels_last))
        quantised: Quantised = self.quantiser(self.to_code(h).to(x.dtype))
        return quantised

    def codes(self, x: Tensor) -> Tensor:
        """Codes `(B, h, w)` of images `(B, C, S, S)` in [0, 1]."""
        return self.quantise(x).codes

    def code_maps(self, x: Tensor) -> dict[str, Tensor]:
        """See `training.protocols.CodeModel`; there is one codebook, with an empty suffix."""
        return {"": self.codes(x)}

    def latent(self, x: Tensor) -> Tensor:
        """The pooled code vectors `(B, D pool^2)`, with the straight-through gradient."""
        return self._pooled(self.quantise(x))

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.describe(self.codes(x)))
        return vectors

    def describe(self, codes: Tensor) -> Tensor:
        """Descriptors of codes `(B, h, w)`, see `CodeDescriptor`."""
        described: Tensor = self.descriptor(self.quantiser.vectors_of(codes), codes)
        return described

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of codes `(B, h, w)`."""
        return self.likelihood.mean(self.parameters_of(self.quantiser.vectors_of(latent)))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.likelihood.mean(self.parameters_of(self.quantise(x).z))

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of codes drawn from the prior.

        Args:
            temperature: temperature of the prior.
            label: `(count,)`; None draws labels by their training frequency.
        """
        return self.decode(self.sample_codes(count, generator, temperature, label))

    def sample_codes(
        self, count: int, generator: torch.Generator | None, temperature: float, label: Tensor | None
    ) -> Tensor:
        """Codes for `decode`, drawn from the prior."""
        if self.pixel_prior is None:
            return self.prior.sample(count, generator, temperature=temperature)
        condition = self.labels.planes(self.labels.or_drawn(label, count, generator), count)
        return self.pixel_prior.sample(count, generator, condition, temperature=temperature)

    def log_prior(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats `(B,)`; without a label, under the mixture over labels."""
        if self.pixel_prior is None:
            return self.prior.log_prob(codes)
        prior, labels = self.pixel_prior, self.labels
        return labels.mixture(lambda known: prior.log_prob(codes, labels.planes(known, len(codes))), label, len(codes))

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """log p(x | z_q(x)) + log p(z_q(x)), a lower bound."""
        quantised = self.quantise(x)
        nats = self.likelihood(x, self.parameters_of(quantised.z)) + self.log_prior(quantised.codes)
        return Likelihood(nats, exact=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective of the paper in nats per image."""
        quantised = self.quantise(batch.x)
        nats = self.likelihood(batch.target, self.parameters_of(quantised.z), batch.weight).mean()
        scalars = {"log_likelihood": nats.detach(), "perplexity": quantised.perplexity}
        objective = 0.5 * batch.x[0].numel() * quantised.loss - nats
        return Loss(objective, scalars, self._pooled(quantised))

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[VqVae, Any]:
        """This model with batch normalisation folded in, and histogram weights, prior and search space fitted."""
        config = replace(self.config, normalisation="none")
        model = VqVae(config).to(self.to_code.weight).eval()
        fold_blocks(self.eval(), model)
        maps, labels = [], []
        for batch in batches:
            maps.append(model.codes(batch.x))
            labels.append(batch.label)
        fit_codes(model.descriptor, model.prior, maps)
        model.labels.fit(labels)
        model.search.fit(torch.cat([model.describe(codes).cpu() for codes in maps]))
        return model, config

    def parameters_of(self, z: Tensor) -> Tensor:
        """The likelihood's parameter `(B, C, S, S)` of quantised maps `(B, D, h, w)`."""
        h = nn.functional.silu(self.from_code(z.contiguous(memory_format=torch.channels_last)))
        out: Tensor = self.out(self.decoder(h)).to(z.dtype)
        return out if self.config.likelihood == "bernoulli" else 0.5 + 0.5 * out

    def _pooled(self, quantised: Quantised) -> Tensor:
        return nn.functional.avg_pool2d(quantised.z, self.descriptor.cell).flatten(1)


def build_prior(config: VqVaeConfig, side: int, condition: int) -> PixelPrior | None:
    """The network prior over maps, on a condition of that many features and the labels; None for `counts`."""
    if config.prior == "counts":
        return None
    features = condition + (config.classes or 0)
    return PixelPrior(config.codes, side, width=config.prior_width, layers=config.prior_layers, condition=features)


def build_quantiser(config: VqVaeConfig) -> VectorQuantiser:
    return VectorQuantiser(
        config.codes,
        config.code_dim,
        update=config.update,
        decay=config.decay,
        commitment=config.commitment,
        restart=config.restart,
    )
