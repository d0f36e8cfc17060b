"""The figures of a trained model for its card."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.protocols import Batch, CodeModel, GenerativeModel, LikelihoodModel, SamplingModel, VariationalModel

Batches = Callable[[], Iterable[Batch]]  # iterates over the batches afresh at each call
ACTIVE = 0.01  # variance of a unit's posterior mean above which it counts as active, Burda et al. 2016, section 4


class LatentUse(NamedTuple):
    """Use of the latents: number of units whose posterior mean varies, and KL of each unit in nats."""

    active_units: int
    kl_per_unit: list[float]


class CodeUse(NamedTuple):
    """Use of a codebook: number of codes that occur, and exp of the entropy of their frequencies."""

    used_codes: int
    perplexity: float


@torch.no_grad()
def latent_use(means: Tensor, kl: Tensor) -> LatentUse:
    """Latent use from the posterior means and KL terms of images, both `(N, latent_dim)`."""
    return LatentUse(int((means.var(dim=0) > ACTIVE).sum()), kl.double().mean(dim=0).tolist())


@torch.no_grad()
def code_use(codes: Tensor) -> CodeUse:
    """Code use from the codes of images, of any shape."""
    counts = torch.bincount(codes.flatten()).double()
    share = counts[counts > 0] / counts.sum()
    return CodeUse(len(share), float(torch.exp(-(share * share.log()).sum())))


@torch.no_grad()
def final_figures(model: Any, train: Batches, validation: Batches) -> dict[str, Any]:
    """Likelihoods or errors on both sides of the split, and the use of the latents on the training side.

    Args:
        model: in eval mode.
        train: batches of the training images.
        validation: batches of the held-out images.
    """
    if isinstance(model, VariationalModel):
        return _variational_figures(model, train, validation)
    if not isinstance(model, SamplingModel):
        return {}
    figures: dict[str, Any] = {}
    for side, batches in (("train", train), ("validation", validation)):
        figures[side] = {}
        if isinstance(model, GenerativeModel):
            figures[side]["squared_error"] = round(_squared_error(model, batches), 6)
        if isinstance(model, LikelihoodModel):
            nats = [model.log_likelihood(batch.x).nats for batch in batches()]
            figures[side] |= _bound_figures(nats, next(iter(batches())).x[0].numel())
    return figures | _code_figures(model, train) if isinstance(model, CodeModel) else figures


def _variational_figures(model: VariationalModel, train: Batches, validation: Batches) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for side, batches in (("train", train), ("validation", validation)):
        noise = torch.Generator().manual_seed(0)
        bounds = [model.elbo(batch, generator=noise) for batch in batches()]
        kl = torch.cat([bound.kl for bound in bounds])
        values = model.values(next(iter(batches())).x)
        figures[side] = _bound_figures([bound.elbo for bound in bounds], values)
        figures[side]["kl"] = round(float(kl.sum(1).mean()), 3)
        if side == "train":
            use = latent_use(torch.cat([model.posterior(batch.x, batch.label).mean for batch in batches()]), kl)
            figures["active_units"] = use.active_units
            figures["kl_per_unit"] = [round(value, 4) for value in use.kl_per_unit]
    return figures


def _code_figures(model: CodeModel, batches: Batches) -> dict[str, Any]:
    maps: dict[str, list[Tensor]] = {}
    for batch in batches():
        for ending, codes in model.code_maps(batch.x).items():
            maps.setdefault(ending, []).append(codes.to("cpu", torch.int32).flatten())
    use = {ending: code_use(torch.cat(parts)) for ending, parts in maps.items()}
    return {f"{name}{ending}": value for ending, each in use.items() for name, value in each._asdict().items()}


def _squared_error(model: GenerativeModel, batches: Batches) -> float:
    """Mean squared error per value, where a channel spans [0, 1]."""
    errors = [torch.square(model.reconstruct(batch.x) - batch.target).mean(dim=(1, 2, 3)) for batch in batches()]
    return float(torch.cat(errors).double().mean())


def _bound_figures(nats: list[Tensor], values: int) -> dict[str, float]:
    """The mean in nats per image, and in bits per value."""
    mean = float(torch.cat(nats).double().mean())
    return {"elbo": round(mean, 2), "bits_per_dim": round(-mean / (values * math.log(2.0)), 4)}
