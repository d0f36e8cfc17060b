"""Base classes of the autoregressive families: an exact likelihood, value-by-value sampling, and a search vector.

    log p(x) = sum_i log p(x_i | x_1 .. x_(i-1))

These families have no decoder. Their code is the features of the network's last layer, averaged over the cells of a
grid in raster networks (which predict pixels row by row). With `classes` the network is conditioned on the label of the
image, which is hidden for a fraction of the training images. Without a label it receives zeros, and the likelihood is
that of the mixture over labels, weighted by their training frequencies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from training.layers.checks import check_at_least, check_choice, check_image, check_search, check_share
from training.layers.distributions import PixelKind, build_distribution
from training.layers.labels import Labels
from training.layers.raster import Drawing, RasterNetwork, predict
from training.layers.search import SearchSpace, Turn
from training.protocols import Batch, Likelihood, Loss
from training.reference import Metric


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig:
    """Settings that the configs of all autoregressive families share.

    Args:
        size: side of the images in pixels.
        channels: 1 or 3.
        likelihood: `bernoulli`, `categorical` or `logistic-mixture`; see `training.layers.distributions`.
        mixtures: number of components of `logistic-mixture`.
        classes: number of labels that condition the network; None for no condition.
        label_dropout: fraction of the training images whose label is hidden from the network.
        search_dim: number of principal axes in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    size: int = 32
    channels: int = 3
    likelihood: PixelKind = "categorical"
    mixtures: int = 10
    classes: int | None = None
    label_dropout: float = 0.1
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        check_choice("likelihood", self.likelihood, get_args(PixelKind))
        check_at_least("mixtures", self.mixtures, 1)
        if self.classes is not None:
            check_at_least("classes", self.classes, 2)
        check_share("label_dropout", self.label_dropout)
        check_search(self.search_dim, self.latent_dim, self.whitening, self.turn)

    @property
    def latent_dim(self) -> int:
        """Size of the code."""
        raise NotImplementedError


class PixelLogProb(NamedTuple):
    """Log-probability of each pixel in nats `(B, S, S)`, and the code of the images `(B, latent_dim)`."""

    nats: Tensor
    code: Tensor


class Autoregressive(nn.Module):
    """A model that predicts each value of an image from the values before it."""

    metric: Metric = "cosine"
    is_exportable = True  # to ONNX

    def __init__(self, config: AutoregressiveConfig) -> None:
        super().__init__()
        self.config: Any = config  # the subclass's own config
        self.labels = Labels(config.classes)
        search_dim = config.search_dim or config.latent_dim
        self.search = SearchSpace(config.latent_dim, search_dim, config.whitening, config.turn)

    @property
    def dim(self) -> int:
        return self.search.dim

    @property
    def classes(self) -> int | None:
        return self.labels.classes

    @abstractmethod
    def pixel_log_prob(self, x: Tensor, label: Tensor | None = None) -> PixelLogProb:
        """Log-probability per pixel and code of images `(B, C, S, S)` in [0, 1], given their labels if known.

        Training hides a fraction of the labels.
        """

    @abstractmethod
    def latent(self, x: Tensor) -> Tensor:
        """The code `(B, latent_dim)` of images without a label."""

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.latent(x))
        return vectors

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Exact log-likelihood in nats per image; with labels, of the mixture over them."""

        def nats(label: Tensor | None) -> Tensor:
            return self.pixel_log_prob(x, label).nats.sum(dim=(1, 2))

        return Likelihood(self.labels.mixture(nats, None, len(x)), exact=self.labels.sums_all)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Negative log-likelihood of the targets in nats per image.

        Pixels of weight 0 are hidden from the network. If `batch.x` differs from the target, it only affects the code.
        """
        target = batch.target if batch.weight is None else batch.target * (batch.weight > 0)
        scored = self.pixel_log_prob(target, batch.label)
        nats = scored.nats if batch.weight is None else scored.nats * batch.weight[:, 0]
        mean = nats.sum(dim=(1, 2)).mean()
        is_own = batch.x is batch.target and batch.weight is None and batch.label is None
        return Loss(-mean, {"log_likelihood": mean.detach()}, scored.code if is_own else self.latent(batch.x))

    def shown(self, label: Tensor | None, count: int) -> Tensor | None:
        """The labels as planes `(count, classes, 1, 1)`, some of them hidden in training; see `Labels.planes`."""
        return self.labels.planes(label, count, dropout=self.config.label_dropout if self.training else 0.0)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        """This model, with its search space fitted to the codes and its label frequencies set."""
        codes, labels = [], []
        for batch in batches:
            codes.append(self.latent(batch.x).cpu())
            labels.append(batch.label)
        self.search.fit(torch.cat(codes))
        self.labels.fit(labels)
        return self, self.config


@dataclass(frozen=True, kw_only=True)
class RasterConfig(AutoregressiveConfig):
    """Settings that the configs of raster networks share; see also `AutoregressiveConfig`.

    Args:
        width: features per pixel, at least the number of channels.
        pool: cells along each side of the grid over which features are averaged; divides `size`.
    """

    width: int = 32
    pool: int = 4

    def __post_init__(self) -> None:
        check_at_least("width", self.width, self.channels)
        check_at_least("pool", self.pool, 1)
        if self.size % self.pool:
            raise ValueError(f"pool must divide size ({self.size}), not be {self.pool}")
        super().__post_init__()

    @property
    def latent_dim(self) -> int:
        return self.width * self.pool**2


class RasterModel(Autoregressive):
    """A model around a network that processes images in raster order.

    Args:
        network: takes images of `channels` + 1 planes, see `to_input`.
    """

    def __init__(self, config: RasterConfig, network: RasterNetwork) -> None:
        super().__init__(config)
        self.network: Any = network
        self.distribution = build_distribution(config.likelihood, config.channels, config.mixtures)

    def pixel_log_prob(self, x: Tensor, label: Tensor | None = None) -> PixelLogProb:
        output = predict(self.network, to_input(x), self.shown(label, len(x)))
        nats = self.distribution.log_prob(x, output.parameters.to(x.dtype))
        return PixelLogProb(nats, self._pool(output.features).to(x.dtype))

    def latent(self, x: Tensor) -> Tensor:
        output = predict(self.network, to_input(x), self.labels.planes(None, x.shape[0]))
        return self._pool(output.features).to(x.dtype)

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
        cached: bool = True,
    ) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1].

        Args:
            temperature: below 1 for more probable images; 0 takes the most probable values.
            label: `(count,)`; None draws labels by their training frequency.
            cached: reuse the activations of earlier pixels; False gives the same images far more slowly.
        """
        config = self.config
        condition = self.labels.planes(self.labels.or_drawn(label, count, generator), count)
        blank = self.search.offset.new_zeros(count, config.channels, config.size, config.size)
        drawing = Drawing(self.network, self.distribution, to_input, temperature, cached)
        return drawing.draw(blank, None, condition, generator)

    def complete(
        self, x: Tensor, known: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Images `(B, C, S, S)` whose pixels outside of `known` `(S, S)` are drawn, each given those before it."""
        drawing = Drawing(self.network, self.distribution, to_input, temperature)
        return drawing.draw(x, known, self.labels.planes(None, x.shape[0]), generator)

    def _pool(self, features: Tensor) -> Tensor:
        return avg_pool2d(features, self.config.size // self.config.pool).flatten(1)


def to_input(x: Tensor) -> Tensor:
    """Network input `(B, C + 1, h, w)` for values in [0, 1]: the values in [-1, 1], and a plane of ones."""
    return torch.cat([2.0 * x - 1.0, torch.ones_like(x[:, :1])], dim=1)
