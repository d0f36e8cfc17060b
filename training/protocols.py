"""What models offer: the types that pass between a model and the training loop, and one protocol per capability.

A family implements the protocols that apply to it; the loop, the encoder and the gallery ask with `isinstance`.

    EncoderModel        every family: images to search vectors
    LatentModel         has a latent vector
    GradientModel       is trained by gradient; VariationalModel and CodeModel refine it
    IncrementalModel    is fitted batch by batch in one pass
    TwoStageModel       fits a prior over its codes after everything else
    BackboneModel       may start from a pretrained network
    SamplingModel       draws images; LabelConditionedModel of a label, CompletingModel pixel by pixel
    GenerativeModel     has a decoder; LabelDecodingModel decodes a latent under a label, StepwiseModel draws in steps
    LikelihoodModel     gives images a likelihood
    LocatingModel       finds the item before it encodes it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.reference import Metric


class Batch(NamedTuple):
    """The input of one training step.

    Args:
        x: input of the encoder, `(B, C, S, S)` in [0, 1]; smaller in the first epochs of a `progressive` recipe.
        target: images that the likelihood is of, `(B, C, S, S)`, multiples of 1/255 in [0, 1]. The same tensor as `x`
            unless the objective asks for another target (the item on white, the image without noise).
        weight: weight of each pixel in the likelihood, `(B, 1, S, S)`; None weights all pixels by 1.
        label: class index that conditions the model, `(B,)` int64; None without a condition.
        mask: coverage of each pixel of `x` by the item, `(B, 1, S, S)`, NaN in images without a known mask; None if no
            image has one.
        small: small views, `(V B / 2, C, s, s)`, of which only latents are needed: one of every pair, then another one
            of every pair; None if no objective uses them.
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
    """The loss of a batch, with the intermediate results that objectives over two views reuse.

    Args:
        objective: scalar to minimise, in nats per image.
        scalars: values to log.
        latent: latent of `batch.x` as from `LatentModel.latent`, with its gradient.
        posterior: for models that have one.
        foreground: logit of each cell of `batch.x` belonging to the item, `(B, 1, h, w)`, for models that predict it.
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


class Likelihood(NamedTuple):
    """Log-likelihood of each image in nats, `(B,)`; `exact` is False for a lower bound (ELBO or IWAE)."""

    nats: Tensor
    exact: bool


class DrawingStep(NamedTuple):
    """Images after one of the steps in which a model draws them, and where it looked and drew.

    Args:
        picture: mean images `(B, C, S, S)` in [0, 1].
        read, written: windows `(B, 5)`: left, top, right, bottom, and the blur of their filters (a standard deviation),
            in pixels; None if the model read nothing, or has no windows.
    """

    picture: Tensor
    read: Tensor | None
    written: Tensor | None


class EncoderModel(Protocol):
    """Every family in `training.models.MODELS`: a `torch.nn.Module` built from its frozen config alone."""

    metric: Metric

    @property
    def dim(self) -> int: ...

    @property
    def is_exportable(self) -> bool:
        """Whether `embed` can be exported to ONNX."""
        ...

    def embed(self, x: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32, not yet normalised, of images `(B, C, H, W)` float32 in [0, 1]."""
        ...


@runtime_checkable
class LatentModel(Protocol):
    """A model with a latent vector."""

    def latent(self, x: Tensor) -> Tensor:
        """Latents `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1], without noise and with a gradient."""
        ...


@runtime_checkable
class GradientModel(LatentModel, Protocol):
    """A model that Lightning trains by gradient."""

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective at a training step (0 is the first)."""
        ...

    def finish(self, batches: Iterable[Batch]) -> tuple[GradientModel, Any]:
        """The model to ship and its config, after a final pass over the training images."""
        ...


@runtime_checkable
class VariationalModel(GradientModel, Protocol):
    """A gradient model with a Gaussian posterior and an evidence lower bound."""

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior: ...

    def elbo(self, batch: Batch, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound of `batch.target` (beta 1, no free bits, weights applied) in nats per image."""
        ...

    def values(self, x: Tensor) -> int:
        """Number of values per image that the likelihood of images `(B, C, S, S)` covers."""
        ...


@runtime_checkable
class CodeModel(GradientModel, Protocol):
    """A gradient model whose latents are codes of one or more codebooks."""

    def code_maps(self, x: Tensor) -> dict[str, Tensor]:
        """Codes `(B, h, w)` of images, coarsest map first, keyed by the suffix of their codebook's figures."""
        ...


@runtime_checkable
class TwoStageModel(Protocol):
    """A model with codes, whose prior over them may be fitted by gradient in a second stage.

    The parameters of that prior have names that start with `pixel_prior`.
    """

    config: Any

    @property
    def has_second_stage(self) -> bool: ...

    def codes(self, x: Tensor) -> Tensor:
        """Codes of images `(B, C, S, S)` in [0, 1]; their shape depends on the family."""
        ...

    def describe(self, codes: Tensor) -> Tensor:
        """Descriptors `(B, D)` of codes, before the search space."""
        ...

    def log_prior(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """Log-probability of codes in nats `(B,)`."""
        ...


@runtime_checkable
class BackboneModel(Protocol):
    """A model that starts from a pretrained network if its config names one."""

    @property
    def backbone_network(self) -> str | None:
        """Name of the network, see `training.layers.backbones.BackboneConfig`; None without a backbone."""
        ...

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the network's published weights; ValueError if they belong to another network."""
        ...

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The parameters of the network that training changes."""
        ...


@runtime_checkable
class IncrementalModel(Protocol):
    """A model that is fitted batch by batch in one pass, without gradients."""

    def partial_fit(self, x: Tensor) -> None: ...

    def check_fitted(self) -> None:
        """Raise ValueError if it has seen too few images."""
        ...


@runtime_checkable
class SamplingModel(Protocol):
    """A model that draws images."""

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images `(count, C, H, W)` in [0, 1] drawn from the model.

        Families with a decoder return mean images of latents drawn from the prior.
        """
        ...


@runtime_checkable
class LabelConditionedModel(Protocol):
    """A model that draws images of a given label, if it was trained with labels."""

    @property
    def classes(self) -> int | None:
        """Number of labels; None if the model was trained without."""
        ...

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """As `SamplingModel.sample`, of labels `(count,)` int64; None draws labels by their training frequency."""
        ...


@runtime_checkable
class CompletingModel(SamplingModel, Protocol):
    """A model that draws images value by value."""

    def complete(
        self, x: Tensor, known: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] whose pixels outside of `known` `(S, S)` are drawn."""
        ...


@runtime_checkable
class GenerativeModel(SamplingModel, Protocol):
    """A model with a decoder."""

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, H, W)` in [0, 1] of latents: `(B, latent_dim)`, or codes for families with codes."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images in [0, 1] of images `(B, C, H, W)` in [0, 1], through the latent without noise."""
        ...


@runtime_checkable
class StepwiseModel(GenerativeModel, Protocol):
    """A model that draws an image in steps."""

    def reconstruct_in_steps(self, x: Tensor) -> list[DrawingStep]:
        """The steps of `reconstruct`."""
        ...

    def sample_in_steps(self, count: int, generator: torch.Generator | None = None) -> list[DrawingStep]:
        """The steps of `sample`."""
        ...


@runtime_checkable
class LabelDecodingModel(Protocol):
    """A model whose decoder is conditioned on a label."""

    @property
    def label_shares(self) -> Tensor:
        """Frequency of each label in training `(classes,)`."""
        ...

    def generate(self, label: Tensor, z: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)` under labels `(B,)`."""
        ...


@runtime_checkable
class LikelihoodModel(SamplingModel, Protocol):
    """A model that gives images a likelihood."""

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Log-likelihood in nats per image of 8-bit images given as `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class LocatingModel(Protocol):
    """A model that finds the item in an image before it encodes it."""

    def embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `(B, dim)`, not yet normalised, and the regions of the images that they describe `(B, 5)`.

        A region is left, top, right, bottom as fractions of the image, and the confidence in [0, 1] that it holds the
        item.

        Args:
            framed: True for images `(B,)` that were already cropped to the item: their region is the whole image.
        """
        ...
