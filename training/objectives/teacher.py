"""`objective.teacher`: a moving average of the weights is the teacher of the current weights.

Tarvainen, Valpola: Mean teachers are better role models, 2017, https://arxiv.org/abs/1703.01780, equations 1 and 2;
between two views as in Grill et al.: Bootstrap Your Own Latent, 2020, https://arxiv.org/abs/2006.07733, equation 2:

    t <- d t + (1 - d) w,   KL(q_t(z | x') || q_w(z | x))

averaged over both directions; the teacher has no gradient. It normalises by moving averages of the student's batch
statistics, as Cai et al.: Exponential Moving Average Normalization for Self-supervised and Semi-supervised
Learning, 2021, https://arxiv.org/abs/2101.08482.

Differs from the papers: compares the posteriors of the views instead of logits or projections. There is no predictor as
in BYOL, as the likelihood prevents collapse. For a recoloured pair only the latents for shapes are compared
(`training.objectives.parts`).
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn

from training.fitting.averaging import follow
from training.fitting.views import shape_rows
from training.objectives.consistency import kl_per_latent
from training.objectives.parts import looks_of
from training.protocols import Batch, Posterior


class Teacher(nn.Module):
    """The moving average of a variational model: part of the training state, always in eval mode, never shipped.

    Args:
        decay: in (0, 1); it rises to its value as in `training.fitting.averaging`.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        super().__init__()
        self.model: Any = deepcopy(student).requires_grad_(False)
        self._decay = decay
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Posterior:
        """The teacher's posterior q_t(z | x) of each view."""
        posterior: Posterior = self.model.posterior(batch.x, batch.label)
        return posterior

    @torch.no_grad()
    def follow(self, student: nn.Module, steps: int) -> None:
        """Update the average after the student's step number `steps`."""
        follow(self.model, student, self._decay, steps)


def taught_nats(taught: Posterior, q: Posterior, shape_share: float) -> Tensor:
    """KL from the teacher's posterior of each view to the student's of the other, in nats per view.

    Args:
        taught, q: posteriors of the teacher and the student `(2B, latent_dim)`, whose halves are the two views.
    """
    half = len(q.mean) // 2
    of_the_other = Posterior(*(part.roll(half, dims=0) for part in taught))
    nats = kl_per_latent(of_the_other, q)
    if shape_share > 0:
        in_strange_colours = shape_rows(len(nats), shape_share).to(nats.device)
        holds_looks = torch.arange(nats.shape[1], device=nats.device) < looks_of(nats.shape[1], shape_share)
        nats = nats.masked_fill(in_strange_colours[:, None] & holds_looks[None, :], 0.0)
    return nats.sum(dim=1).mean()
