"""Fits a flow over vectors by maximum likelihood."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from training.layers.vector_flow import VectorFlow

AT_ONCE = 4096  # held-out vectors whose density is computed together
CLIP = 10.0  # largest norm of a gradient


@dataclass(frozen=True, kw_only=True)
class DensitySettings:
    """How a flow is fitted: Adam, with a learning rate that falls along a cosine to 0.

    Args:
        epochs: passes over the training vectors.
        batch_size: vectors per step.
        lr: first learning rate.
        seed: of the order of the vectors.
    """

    epochs: int = 40
    batch_size: int = 256
    lr: float = 3e-3
    seed: int = 0


class DensityFit(NamedTuple):
    """Mean negative log-densities in nats of the held-out vectors: the least, and that after each epoch."""

    nats: float
    curve: list[float]


def fit_density(
    flow: VectorFlow,
    train: Tensor,
    held_out: Tensor,
    settings: DensitySettings,
    advance: Callable[[int], None] = lambda _: None,
) -> DensityFit:
    """Fit a flow to vectors `(N, D)`; it keeps the weights of the epoch that is best on the held-out ones.

    Args:
        advance: called after each epoch with 1.
    """
    order = torch.Generator().manual_seed(settings.seed)
    optimiser = torch.optim.Adam(flow.parameters(), settings.lr)
    steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, curve = copy.deepcopy(flow.state_dict()), list[float]()
    for _ in range(settings.epochs):
        flow.train()
        for rows in torch.split(torch.randperm(len(train), generator=order), settings.batch_size):
            optimiser.zero_grad()
            nats = -flow.log_prob(train[rows]).mean()
            nats.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
            optimiser.step()
            schedule.step()
        curve.append(held_out_nats(flow, held_out))
        if curve[-1] == min(curve):
            best = copy.deepcopy(flow.state_dict())
        advance(1)
    flow.load_state_dict(best)
    flow.eval()
    return DensityFit(min(curve), curve)


@torch.no_grad()
def held_out_nats(flow: VectorFlow, held_out: Tensor) -> float:
    """Mean negative log-density in nats of vectors `(N, D)`; leaves the flow in eval mode."""
    flow.eval()
    return -float(torch.cat([flow.log_prob(part) for part in torch.split(held_out, AT_ONCE)]).double().mean())
