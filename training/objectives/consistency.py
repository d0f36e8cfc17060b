"""`objective.consistency`: two views of an item should have the same posterior.

Sinha, Dieng: Consistency Regularization for Variational Auto-Encoders, 2021, https://arxiv.org/abs/2105.14859. Adds
weight * KL(q(z | x') || q(z | x)) to the bounds of both views.

Differs from the paper: both views are augmented in the same way, so the KL is averaged over both directions, which has
the same expectation and less noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.protocols import Posterior


def consistency(q: Posterior) -> Tensor:
    """Mean KL in nats per pair between the posteriors of the two views, which are the halves of a batch."""
    first, second = (Posterior(*halves) for halves in zip(*(part.chunk(2) for part in q), strict=True))
    return 0.5 * (kl_between(first, second) + kl_between(second, first)).mean()


def kl_between(q: Posterior, p: Posterior) -> Tensor:
    """KL(q || p) of diagonal Gaussians in nats `(B,)`."""
    return kl_per_latent(q, p).sum(dim=1)


def kl_per_latent(q: Posterior, p: Posterior) -> Tensor:
    """KL(q || p) per latent in nats `(B, latent_dim)`."""
    variance_ratio = torch.exp(q.log_variance - p.log_variance)
    distance = torch.square(q.mean - p.mean) * torch.exp(-p.log_variance)
    return 0.5 * (variance_ratio + distance - 1.0 - (q.log_variance - p.log_variance))
