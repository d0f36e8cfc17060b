"""VQ-VAE-2: two maps of codes, a coarse top map for the global structure and a fine bottom map for details.

Razavi, van den Oord, Vinyals: Generating Diverse High-Fidelity Images with VQ-VAE-2, 2019,
https://arxiv.org/abs/1906.00446, algorithm 1: the top map is quantised first; the bottom map is quantised from the
encoder's features concatenated with the decoded top map, which conditions it on the top map; the decoder reads both.
Both codebooks learn by moving averages or by gradient, as in `training.layers.quantise`.

Differs from the paper: as in `training.models.vq_vae`; one top stage, whose side is half that of the bottom map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, silu

from training.layers.blocks import Block, fold_blocks
from training.layers.checks import check_at_least, check_choice, check_search
from training.layers.codes import CodeDescriptor, CodePrior, fit_codes
from training.layers.labels import Labels
from training.layers.likelihoods import PixelLikelihood
from training.layers.networks import decoder_stages, encoder_stages
from training.layers.quantise import Quantised
from training.layers.search import SearchSpace
from training.models.vq_vae import VqVaeConfig, build_prior, build_quantiser
from training.protocols import Batch, Likelihood, Loss
from training.reference import Metric

SearchLevels = Literal["both", "top"]


@dataclass(frozen=True, kw_only=True)
class VqVae2Config(VqVaeConfig):
    """Configuration of `VqVae2`; see `VqVaeConfig`, whose `widths` lead to the bottom map.

    Args:
        top_width: channels of the stage between the bottom and the top map.
        pool: cells along each side of both grids over which codes are pooled.
        search_levels: levels that the latent and the search vector are made of, `both` or the `top` alone.
    """

    widths: tuple[int, ...] = (64, 128)
    decoder_widths: tuple[int, ...] = (128, 64)
    top_width: int = 128
    search_levels: SearchLevels = "both"

    @property
    def described(self) -> int:
        """Number of levels in the search vector."""
        return 2 if self.search_levels == "both" else 1

    def _check_maps(self) -> None:
        check_at_least("top_width", self.top_width, 1)
        if self.side % 2:
            raise ValueError(f"size must give a bottom map with an even side, not {self.side}")
        if self.side // 2 % self.pool:
            raise ValueError(f"pool must divide the side of the top map ({self.side // 2}), not be {self.pool}")
        check_choice("search_levels", self.search_levels, get_args(SearchLevels))
        size = self.described * (self.code_dim * self.pool**2 + self.codes)
        check_search(self.search_dim, size, self.whitening, self.turn)


class Levels(NamedTuple):
    """The quantised maps of both levels."""

    top: Quantised
    bottom: Quantised


class VqVae2(nn.Module):
    """A VQ-VAE-2; its latents are the codes of both levels, top first, flattened: `(B, h w / 4 + h w)` int64.

    Example:
        >>> config = VqVae2Config(size=16, widths=(8,), decoder_widths=(8,), codes=16, code_dim=4, pool=2, top_width=8)
        >>> VqVae2(config).codes(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 80])
    """

    metric: Metric = "cosine"
    is_exportable = True

    def __init__(self, config: VqVae2Config) -> None:
        super().__init__()
        self.config = config
        normalise = config.normalisation == "batch"
        last, first, code_dim = config.widths[-1], config.decoder_widths[0], config.code_dim
        self.encoder = encoder_stages(config.channels, config.widths, config.depth, normalise)
        self.encoder_top = Block(
            nn.Conv2d(last, config.top_width, 4, stride=2, padding=1, bias=not normalise), normalise
        )
        self.to_top = nn.Conv2d(config.top_width, code_dim, 1)
        self.top = build_quantiser(config)
        self.decoder_top = nn.ConvTranspose2d(code_dim, code_dim, 4, stride=2, padding=1)
        self.to_bottom = nn.Conv2d(last + code_dim, code_dim, 1)
        self.bottom = build_quantiser(config)
        self.from_codes = nn.Conv2d(2 * code_dim, first, 3, padding=1)
        self.decoder = decoder_stages(first, config.decoder_widths[1:], config.decoder_depth, normalise)
        self.out = nn.ConvTranspose2d(config.decoder_widths[-1], config.channels, 4, stride=2, padding=1)
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)
        sides = (config.side // 2, config.side)
        self.descriptor_top, self.descriptor = (
            CodeDescriptor(config.codes, code_dim, side, config.pool, config.histogram_weight) for side in sides
        )
        self.prior_top, self.prior = (CodePrior(config.codes, side) for side in sides)
        self.pixel_prior_top = build_prior(config, sides[0], 0)
        self.pixel_prior = build_prior(config, sides[1], code_dim)
        self.labels = Labels(config.classes)
        latent_dim = config.described * (code_dim * config.pool**2 + config.codes)
        self.search = SearchSpace(latent_dim, config.search_dim or latent_dim, config.whitening, config.turn)
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

    def quantise(self, x: Tensor) -> Levels:
        """Both quantised maps of images `(B, C, S, S)` in [0, 1]."""
        h = self.encoder((2.0 * x - 1.0).contiguous(memory_format=torch.channels_last))
        top = self.top(self.to_top(self.encoder_top(h)).to(x.dtype))
        conditioned = torch.cat([h, self.decoder_top(top.z).to(h.dtype)], dim=1)
        return Levels(top, self.bottom(self.to_bottom(conditioned).to(x.dtype)))

    def codes(self, x: Tensor) -> Tensor:
        """Codes of images `(B, C, S, S)` in [0, 1], for `decode`."""
        levels = self.quantise(x)
        return torch.cat([level.codes.flatten(1) for level in levels], dim=1)

    def code_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The codes of both levels, see `training.protocols.CodeModel`."""
        levels = self.quantise(x)
        return {"_top": levels.top.codes, "": levels.bottom.codes}

    def latent(self, x: Tensor) -> Tensor:
        """The pooled code vectors of the levels used `(B, levels D pool^2)`, with the straight-through gradient."""
        return self._pooled(self.quantise(x))

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.describe(self.codes(x)))
        return vectors

    def describe(self, codes: Tensor) -> Tensor:
        """Descriptors of codes as from `codes`: one `CodeDescriptor` per level used."""
        top, bottom = self.split(codes)
        described: Tensor = self.descriptor_top(self.top.vectors_of(top), top)
        if self.config.search_levels == "top":
            return described
        return torch.cat([described, self.descriptor(self.bottom.vectors_of(bottom), bottom)], dim=1)

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of codes as from `codes`."""
        top, bottom = self.split(latent)
        return self.likelihood.mean(self.parameters_of(self.top.vectors_of(top), self.bottom.vectors_of(bottom)))

    def split(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The top codes `(B, h / 2, w / 2)` and the bottom codes `(B, h, w)`."""
        side = self.config.side
        top, bottom = latent[:, : side**2 // 4], latent[:, side**2 // 4 :]
        return top.reshape(-1, side // 2, side // 2), bottom.reshape(-1, side, side)

    def reconstruct(self, x: Tensor) -> Tensor:
        levels = self.quantise(x)
        return self.likelihood.mean(self.parameters_of(levels.top.z, levels.bottom.z))

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """As `VqVae.sample`, with the top map drawn from its prior and the bottom map given the top map."""
        return self.decode(self.sample_codes(count, generator, temperature, label))

    def sample_codes(
        self, count: int, generator: torch.Generator | None, temperature: float, label: Tensor | None
    ) -> Tensor:
        """Codes for `decode`, drawn from the priors."""
        if self.pixel_prior_top is None or self.pixel_prior is None:
            counts = (self.prior_top, self.prior)
            drawn = [prior.sample(count, generator, temperature=temperature) for prior in counts]
            return torch.cat([codes.flatten(1) for codes in drawn], dim=1)
        planes = self.labels.planes(self.labels.or_drawn(label, count, generator), count)
        top = self.pixel_prior_top.sample(count, generator, planes, temperature=temperature)
        bottom = self.pixel_prior.sample(count, generator, self._given_top(top, planes), temperature=temperature)
        return torch.cat([top.flatten(1), bottom.flatten(1)], dim=1)

    def log_prior(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats `(B,)`; without a label, under the mixture over labels."""
        top, bottom = self.split(codes)
        prior_top, prior = self.pixel_prior_top, self.pixel_prior
        if prior_top is None or prior is None:
            return self.prior_top.log_prob(top) + self.prior.log_prob(bottom)

        def nats(known: Tensor | None) -> Tensor:
            planes = self.labels.planes(known, len(codes))
            return prior_top.log_prob(top, planes) + prior.log_prob(bottom, self._given_top(top, planes))

        return self.labels.mixture(nats, label, len(codes))

    def _given_top(self, top: Tensor, label_planes: Tensor | None) -> Tensor:
        """Condition of the bottom map's prior `(B, F, h, w)`: the top codes' vectors, and the label."""
        vectors = interpolate(self.top.vectors_of(top), scale_factor=2.0, mode="nearest")
        if label_planes is None:
            return vectors
        return torch.cat([vectors, label_planes.expand(-1, -1, *vectors.shape[2:])], dim=1)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """log p(x | codes) + log p(codes), a lower bound."""
        levels = self.quantise(x)
        nats = self.likelihood(x, self.parameters_of(levels.top.z, levels.bottom.z))
        codes = torch.cat([level.codes.flatten(1) for level in levels], dim=1)
        return Likelihood(nats + self.log_prior(codes), exact=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective of `VqVae`, with the quantiser terms of both levels."""
        levels = self.quantise(batch.x)
        parameter = self.parameters_of(levels.top.z, levels.bottom.z)
        nats = self.likelihood(batch.target, parameter, batch.weight).mean()
        scalars = {
            "log_likelihood": nats.detach(),
            "perplexity_top": levels.top.perplexity,
            "perplexity": levels.bottom.perplexity,
        }
        objective = 0.5 * batch.x[0].numel() * (levels.top.loss + levels.bottom.loss) - nats
        return Loss(objective, scalars, self._pooled(levels))

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[VqVae2, Any]:
        """This model with batch normalisation folded in, and histogram weights, priors and search space fitted."""
        config = replace(self.config, normalisation="none")
        model = VqVae2(config).to(self.to_top.weight).eval()
        fold_blocks(self.eval(), model)
        found, labels = [], []
        for batch in batches:
            found.append(model.codes(batch.x))
            labels.append(batch.label)
        model.labels.fit(labels)
        fit_codes(model.descriptor_top, model.prior_top, [model.split(codes)[0] for codes in found])
        fit_codes(model.descriptor, model.prior, [model.split(codes)[1] for codes in found])
        model.search.fit(torch.cat([model.describe(codes).cpu() for codes in found]))
        return model, config

    def parameters_of(self, top: Tensor, bottom: Tensor) -> Tensor:
        """The likelihood's parameter `(B, C, S, S)` of both quantised maps."""
        both = torch.cat([bottom, interpolate(top, scale_factor=2.0, mode="nearest")], dim=1)
        h = silu(self.from_codes(both.contiguous(memory_format=torch.channels_last)))
        out: Tensor = self.out(self.decoder(h)).to(top.dtype)
        return out if self.config.likelihood == "bernoulli" else 0.5 + 0.5 * out

    def _pooled(self, levels: Levels) -> Tensor:
        top = avg_pool2d(levels.top.z, self.descriptor_top.cell).flatten(1)
        if self.config.search_levels == "top":
            return top
        bottom = avg_pool2d(levels.bottom.z, self.descriptor.cell)
        return torch.cat([top, bottom.flatten(1)], dim=1)
