"""What the training loop asks of a model, and what it gets back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.reference import Metric


class Batch(NamedTuple):
    """What one training step is given.

    Args:
        x: what the encoder sees, `(B, C, S, S)` in [0, 1]; smaller in the first epochs of a `progressive` recipe.
        target: what the likelihood is of, `(B, C, S, S)`, multiples of 1/255 in [0, 1]; `x` itself unless the
            objective asks for another (the item on a plain background, the picture without noise).
        weight: of each pixel in the likelihood, `(B, 1, S, S)`; None weighs all by 1.
        label: index of the class that conditions the model, `(B,)` int64; None where nothing does.
        mask: share of each pixel of `x` that is the item's, `(B, 1, S, S)`, NaN in images where that is not known; None
            where it is known of none.
        small: parts of the pictures, whose latents alone are asked for, `(V B / 2, C, s, s)`: one of every pair, then
            another one of every pair; None where nothing asks for them.
    """

    x: Tensor
    target: Tensor
    weight: Tensor | None = None
    label: Tensor | None = None
    mask: Tensor | None = None
    small: Tensor | None = None


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z | x): mean and log-variance `(B, latent_dim)`."""

    mean: Tensor
    log_variance: Tensor


class Loss(NamedTuple):
    """What is minimised, and what objectives over two views need besides, computed once.

    Args:
        objective: a scalar in nats per image.
        scalars: worth plotting.
        latent: the code of `batch.x` as `GradientModel.latent` gives it, with its gradient.
        posterior: where the model has one.
        foreground: logit of each cell of `batch.x` being the item, `(B, 1, h, w)`, where the model guesses that.
    """

    objective: Tensor
    scalars: dict[str, Tensor]
    latent: Tensor
    posterior: Posterior | None = None
    foreground: Tensor | None = None


class Elbo(NamedTuple):
    """Evidence lower bound in nats per image `(B,)`, and its parts: E_q log p(x | z) `(B,)`, KL `(B, latent_dim)`."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


@runtime_checkable
class GradientModel(Protocol):
    """A model that Lightning trains by gradient."""

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective at a training step (0 is the first)."""
        ...

    def latent(self, x: Tensor) -> Tensor:
        """The code `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1], without noise and with a gradient."""
        ...

    def finish(self, batches: Iterable[Batch]) -> tuple[GradientModel, Any]:
        """The model to ship with its config, after a last pass over the training images."""
        ...


@runtime_checkable
class BackboneModel(Protocol):
    """A model that begins with a network which others have trained, where its config names one."""

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Take over the network's weights as they are published; ValueError where they are of another."""
        ...

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Those of the network's parameters that training changes."""
        ...


@runtime_checkable
class VariationalModel(GradientModel, Protocol):
    """A gradient model with a Gaussian posterior and an evidence lower bound."""

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior: ...

    def elbo(self, batch: Batch, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound of `batch.target` (beta 1, no free bits, weights applied) in nats per image."""
        ...

    def values(self, x: Tensor) -> int:
        """How many values the likelihood of each of the images `(B, C, S, S)` is of."""
        ...


@runtime_checkable
class CodeModel(GradientModel, Protocol):
    """A gradient model whose latents are codes of one codebook or several."""

    def code_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Codes `(B, h, w)` of images, by what the names of their codebook's figures end in."""
        ...


@runtime_checkable
class IncrementalModel(Protocol):
    """A model that is fitted batch by batch in one pass, without gradients."""

    def partial_fit(self, x: Tensor) -> None: ...

    def check_fitted(self) -> None:
        """Raise ValueError where the images seen were too few."""
        ...


class Likelihood(NamedTuple):
    """Log-likelihood of each image in nats, `(B,)`; `exact` is False where it is a lower bound (ELBO or IWAE)."""

    nats: Tensor
    exact: bool


class EncoderModel(Protocol):
    """What every family in `training.models.MODELS` offers; a `torch.nn.Module` built from its frozen config alone."""

    metric: Metric

    @property
    def dim(self) -> int: ...

    def embed(self, x: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32 of images `(B, C, H, W)` float32 in [0, 1]; not yet normalised."""
        ...


@runtime_checkable
class SamplingModel(Protocol):
    """What families that can make images offer besides."""

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images `(count, C, H, W)` in [0, 1] drawn from the model.

        Families with a decoder give mean images of latents drawn from the prior.
        """
        ...


@runtime_checkable
class CompletingModel(SamplingModel, Protocol):
    """What families that draw images value by value offer besides."""

    def complete(
        self, x: Tensor, known: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] with the pixels that are not `known` `(S, S)` drawn."""
        ...


@runtime_checkable
class GenerativeModel(SamplingModel, Protocol):
    """What families with a decoder offer besides."""

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, H, W)` in [0, 1] of latents: `(B, latent_dim)`, or codes as the family says."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images in [0, 1] of images `(B, C, H, W)` in [0, 1], through the latent without noise."""
        ...


@runtime_checkable
class LikelihoodModel(SamplingModel, Protocol):
    """What families that can say how likely an image is offer besides."""

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Log-likelihood in nats per image of 8-bit images given as `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class LocatingModel(Protocol):
    """What families that find the item in a picture before they encode it offer besides."""

    def embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `(B, dim)`, not yet normalised, and the regions `(B, 5)` of the pictures that they are of.

        A region is left, top, right, bottom in shares of the picture, and the confidence in [0, 1] that it is the item.

        Args:
            framed: True in pictures `(B,)` that somebody cut to the item: their region is the whole picture.
        """
        ...
