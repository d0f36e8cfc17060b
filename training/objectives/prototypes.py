"""`objective.prototypes`: views of an item should be assigned to the same prototypes.

Caron et al.: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, 2020,
https://arxiv.org/abs/2006.09882. With unit latents z and unit prototypes c_1 .. c_K:

    L(z_t, z_s) = l(z_t, q_s) + l(z_s, q_t)                                         equation 1
    l(z_t, q_s) = - sum_k q_s^(k) log p_t^(k),  p_t = softmax_k(z_t c_k / tau)      equation 2
    Q = argmax over Q in the polytope of Tr(Q' C' Z) + epsilon H(Q)                 equation 3
    polytope: Q 1_B = 1_K / K and Q' 1_K = 1_B / B                                  equation 4
    Q = Diag(u) exp(C' Z / epsilon) Diag(v)                                         equation 5

u and v come from a few Sinkhorn-Knopp iterations in log space, so that a small epsilon does not overflow. Assignments
are computed within each view's half of the batch, without gradients.

Differs from the paper: prototypes are normalised on use instead of after each step; they learn from the first step;
there is no queue of earlier latents; both directions are averaged, as for InfoNCE. With a `shape_share` each part of
the latent has its own prototypes (`training.objectives.parts`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.objectives.contrastive import unit_length
from training.recipes.objective import Prototypes as Settings


class Prototypes(nn.Module):
    """Prototypes of latents `(.., D)`: part of the training state, never shipped."""

    def __init__(self, settings: Settings, latent_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.randn(settings.count, latent_dim) / latent_dim**0.5)

    def scores(self, latents: Tensor) -> Tensor:
        """Cosines `(N, K)` of latents `(N, D)`."""
        with torch.autocast(latents.device.type, enabled=False):
            return unit_length(latents) @ unit_length(self.weight).T

    @torch.no_grad()
    def assignments(self, scores: Tensor) -> Tensor:
        """Soft assignments to the prototypes from the scores `(B, K)` of one view; rows sum to 1."""
        return len(scores) * sinkhorn(scores, self.settings.epsilon, self.settings.iterations)

    def forward(self, latents: Tensor) -> Tensor:
        """Swapped cross-entropy in nats per view of latents `(2B, D)`, whose halves are the two views."""
        scores = self.scores(latents)
        targets = [self.assignments(half) for half in scores.detach().chunk(2)]
        return self.missed(scores, torch.cat(targets[::-1]))

    def missed(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The cross-entropy of assignments under scores, both `(N, K)`; equation 2, averaged over rows."""
        log_p = nn.functional.log_softmax(scores / self.settings.temperature, dim=1)
        return -(targets * log_p).sum(dim=1).mean()


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Q' of equation 5, `(B, K)`: rows sum to 1/B; columns approach 1/K with more iterations.

    Args:
        scores: z c `(B, K)`.
    """
    rows, columns = scores.shape
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - torch.logsumexp(log_q, dim=0, keepdim=True) - math.log(columns)
        log_q = log_q - torch.logsumexp(log_q, dim=1, keepdim=True) - math.log(rows)
    return torch.exp(log_q)
