"""What a recipe asks of the latents besides the family's own objective: terms over two views of each item.

Each term's paper and formula stand in a file of its own: `consistency`, `contrast`, `teacher`, `prototypes`,
`small_views`, `foreground`; `parts` says which part of the latent a pair teaches.

The other two ways to be robust to backgrounds are made in the batch (`training.fitting.views`): `clean_target` gives
the item on white as the target, `foreground_weight` weighs what is behind it in the likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.fitting.examples import Examples
from training.fitting.modes import in_use
from training.objectives.consistency import consistency, kl_between
from training.objectives.contrast import info_nce
from training.objectives.foreground import foreground_nats
from training.objectives.parts import looks_of, parts_of
from training.objectives.prototypes import Prototypes
from training.objectives.small_views import small_info_nce, small_swapped, with_small
from training.objectives.teacher import Teacher, taught_nats
from training.protocols import Loss, Posterior
from training.recipes.schema import Objective

__all__ = [
    "Beside",
    "Objectives",
    "Teacher",
    "build_objectives",
    "consistency",
    "foreground_nats",
    "info_nce",
    "kl_between",
]

Term = tuple[str, float, Tensor]  # its name, its weight, its nats per image


class Beside(NamedTuple):
    """What some terms need besides the loss of a batch of `2B` views.

    Args:
        taught: the teacher's posteriors of the views.
        small: latents of the batch's small views `(V B, latent_dim)`.
        related: which rows are of items that were mined as each other's neighbours, `(2B, 2B)` bool.
        shrunk: how many times as many pixels as the batch's pictures those of full size have.
    """

    taught: Posterior | None = None
    small: Tensor | None = None
    related: Tensor | None = None
    shrunk: float = 1.0


class Compared(NamedTuple):
    """A part of the latent, and the rows that it is compared over; `small` are those pairs' small views."""

    number: int
    rows: Tensor | slice
    latent: Tensor
    small: Tensor | None


class Objectives(nn.Module):
    """The terms that a recipe adds, and what they learn themselves, which never ships.

    Args:
        latent_dim: size of the model's latents.
        teacher: where the settings ask for one.
    """

    def __init__(self, settings: Objective, latent_dim: int, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.teacher = teacher
        self.head: nn.Module = nn.Identity()
        width = settings.contrastive.projection if settings.contrastive else None
        if width is not None:
            self.head = nn.Sequential(nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.prototypes = nn.ModuleList()
        if settings.prototypes is not None:
            looks = looks_of(latent_dim, settings.shape_share)
            dims = [width or latent_dim] if settings.shape_share == 0 else [looks, latent_dim - looks]
            self.prototypes.extend(Prototypes(settings.prototypes, dim) for dim in dims)

    def forward(
        self, loss: Loss, items: Tensor, mask: Tensor | None = None, beside: Beside | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the objective, in nats per image, and each term before its weight.

        Args:
            loss: of a batch with first views in its first half and second views in its second; consistency and a
                teacher ask for posteriors.
            items: number of the item in each row `(2B,)`.
            mask: of the batch, see `Batch`.
        """
        extra = torch.zeros_like(loss.objective)
        scalars: dict[str, Tensor] = {}
        for name, weight, nats in self._terms(loss, items, mask, beside or Beside()):
            extra = extra + weight * nats
            scalars[name] = nats.detach()
        return extra, scalars

    def _terms(self, loss: Loss, items: Tensor, mask: Tensor | None, beside: Beside) -> Iterator[Term]:
        settings = self.settings
        if settings.consistency > 0:
            if loss.posterior is None:
                raise ValueError("consistency needs a model with a posterior")
            yield "consistency", settings.consistency, consistency(loss.posterior)
        if settings.contrastive is not None:
            nats = self._contrast(loss.latent, items, beside, settings.contrastive.temperature)
            yield "contrastive", settings.contrastive.weight, nats
        if settings.foreground > 0 and mask is not None:
            if loss.foreground is None:
                raise ValueError("foreground needs a model that guesses it")
            yield "foreground", settings.foreground, foreground_nats(loss.foreground, mask, shrunk=beside.shrunk)
        if settings.teacher is not None:
            if loss.posterior is None or beside.taught is None:
                raise ValueError("teacher needs a model with a posterior, and the teacher's posteriors of the views")
            yield "teacher", settings.teacher.weight, taught_nats(beside.taught, loss.posterior, settings.shape_share)
        if settings.prototypes is not None:
            yield "prototypes", settings.prototypes.weight, self._assign(loss.latent, beside.small)

    def _contrast(self, latent: Tensor, items: Tensor, beside: Beside, temperature: float) -> Tensor:
        nats = []
        for part in self._compared(latent, beside.small):
            related = None if beside.related is None else beside.related[part.rows][:, part.rows]
            among = items[part.rows]
            full = info_nce(part.latent, among, temperature, related)
            if part.small is not None:
                small = small_info_nce(part.small, part.latent, among, temperature, related)
                full = with_small(full, small, 2 * len(part.small) // len(part.latent))
            nats.append(full)
        return torch.stack(nats).mean()

    def _assign(self, latent: Tensor, small: Tensor | None) -> Tensor:
        nats = []
        for part in self._compared(latent, small):
            prototypes = cast(Prototypes, self.prototypes[part.number])
            full: Tensor = prototypes(part.latent)
            if part.small is not None:
                missed = small_swapped(part.small, part.latent, prototypes)
                full = with_small(full, missed, 2 * len(part.small) // len(part.latent))
            nats.append(full)
        return torch.stack(nats).mean()

    def _compared(self, latent: Tensor, small: Tensor | None) -> Iterator[Compared]:
        share = self.settings.shape_share
        if share == 0:
            yield Compared(0, slice(None), self.head(latent), None if small is None else self.head(small))
            return
        for part in parts_of(latent, share):
            pairs = part.rows[: len(latent) // 2]
            some = None if small is None else small[pairs.repeat(len(small) // len(pairs)), part.latents]
            yield Compared(part.number, part.rows, latent[:, part.latents][part.rows], some)


def build_objectives(settings: Objective, model: Any, examples: Examples) -> Objectives:
    """The objectives over a model, whose latents' size is asked of the model itself.

    Raises:
        RecipeError: a part of the latent would have no number.
    """
    teacher = None if settings.teacher is None else Teacher(model, settings.teacher.decay)
    has_head = settings.contrastive is not None and settings.contrastive.projection is not None
    if not has_head and settings.prototypes is None and settings.shape_share == 0:
        return Objectives(settings, 0, teacher)
    with in_use(model):
        latent_dim = model.latent(examples.images[:1].float() / 255.0).shape[1]
    if settings.shape_share > 0 and looks_of(latent_dim, settings.shape_share) in (0, latent_dim):
        share = f"objective.contrastive.shape_share {settings.shape_share:g}"
        raise RecipeError(f"{share} leaves a part of the {latent_dim} latents empty; take one nearer to 0.5")
    return Objectives(settings, latent_dim, teacher)
