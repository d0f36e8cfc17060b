"""The figures of a trained model that go onto its card."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.encoder import GenerativeModel
from training.models.protocols import GradientModel

Batches = Callable[[], Iterable[Tensor]]  # gives the batches anew at each call
ACTIVE = 0.01  # variance of a unit's posterior mean above which it counts as active, Burda et al. 2016, section 4


class LatentUse(NamedTuple):
    """How much the latents hold: units whose posterior mean varies, and the KL of each unit in nats."""

    active_units: int
    kl_per_unit: list[float]


@torch.no_grad()
def latent_use(means: Tensor, kl: Tensor) -> LatentUse:
    """From the posterior means and the KL terms of many images, both `(N, latent_dim)`."""
    return LatentUse(int((means.var(dim=0) > ACTIVE).sum()), kl.double().mean(dim=0).tolist())


@torch.no_grad()
def final_figures(model: Any, train: Batches, validation: Batches) -> dict[str, Any]:
    """Bounds on both sides of the split, and the use of the latents on the training side.

    Args:
        model: in eval mode.
        train: gives the training images in batches `(B, C, H, W)` in [0, 1].
        validation: the same for the images held out.
    """
    if isinstance(model, GradientModel):
        return _variational_figures(model, train, validation)
    if isinstance(model, GenerativeModel):
        return {
            "train": _bound_figures([model.log_likelihood(x).nats for x in train()], train),
            "validation": _bound_figures([model.log_likelihood(x).nats for x in validation()], validation),
        }
    return {}


def _variational_figures(model: GradientModel, train: Batches, validation: Batches) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for side, batches in (("train", train), ("validation", validation)):
        noise = torch.Generator().manual_seed(0)
        bounds = [model.elbo(x, generator=noise) for x in batches()]
        kl = torch.cat([bound.kl for bound in bounds])
        figures[side] = _bound_figures([bound.elbo for bound in bounds], batches)
        figures[side]["kl"] = round(float(kl.sum(1).mean()), 3)
        if side == "train":
            use = latent_use(torch.cat([model.posterior(x).mean for x in batches()]), kl)
            figures["active_units"] = use.active_units
            figures["kl_per_unit"] = [round(value, 4) for value in use.kl_per_unit]
    return figures


def _bound_figures(nats: list[Tensor], batches: Batches) -> dict[str, float]:
    mean = float(torch.cat(nats).double().mean())
    values = next(iter(batches()))[0].numel()
    return {"elbo": round(mean, 2), "bits_per_dim": round(-mean / (values * math.log(2.0)), 4)}
