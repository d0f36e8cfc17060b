"""What the training loop asks of a model, and what it gets back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Loss(NamedTuple):
    """What is minimised, a scalar in nats per image, and scalars worth plotting."""

    objective: Tensor
    scalars: dict[str, Tensor]


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z | x): mean and log-variance `(B, latent_dim)`."""

    mean: Tensor
    log_variance: Tensor


class Elbo(NamedTuple):
    """Evidence lower bound in nats per image `(B,)`, and its parts: E_q log p(x | z) `(B,)`, KL `(B, latent_dim)`."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


@runtime_checkable
class GradientModel(Protocol):
    """A model that Lightning trains by gradient, on an evidence lower bound."""

    def loss(self, x: Tensor, step: int) -> Loss: ...

    def posterior(self, x: Tensor) -> Posterior: ...

    def elbo(self, x: Tensor, *, generator: torch.Generator | None = None) -> Elbo: ...

    def finish(self, batches: Iterable[Tensor]) -> tuple[GradientModel, Any]:
        """The model to ship with its config, after a last pass over the training images `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class IncrementalModel(Protocol):
    """A model that is fitted batch by batch in one pass, without gradients."""

    def partial_fit(self, x: Tensor) -> None: ...

    def check_fitted(self) -> None:
        """Raise ValueError where the images seen were too few."""
        ...
