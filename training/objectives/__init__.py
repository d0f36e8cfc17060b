"""Objectives on the latents that a recipe adds to the loss of the family, mostly over two views of each item.

Each term has its own module, named after its setting, with its paper and formula: `consistency`, `contrastive`,
`teacher`, `prototypes`, `small_views`, `foreground`; `parts` assigns parts of the latent to pairs.

The other settings of `objective` change the batch. `training.fitting.views`: `clean_target` makes the item on white the
target, `foreground_weight` weights the background in the likelihood, and `other_photo` takes another photo of the item
as second view. `training.fitting.mining`: `mined` takes photos of neighbouring items.
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
from training.objectives.contrastive import info_nce
from training.objectives.foreground import foreground_nats
from training.objectives.parts import looks_of, parts_of
from training.objectives.prototypes import Prototypes
from training.objectives.small_views import small_info_nce, small_swapped, with_small
from training.objectives.teacher import Teacher, taught_nats
from training.protocols import Loss, Posterior
from training.recipes.objective import Objective

__all__ = [
    "Extras",
    "Objectives",
    "Teacher",
    "build_objectives",
    "consistency",
    "foreground_nats",
    "info_nce",
    "kl_between",
]

Term = tuple[str, float, Tensor]  # name, weight, nats per image


class Extras(NamedTuple):
    """Further inputs of some terms for a batch of `2B` views, beside its loss.

    Args:
        taught: the teacher's posteriors of the views.
        small: latents of the small views `(V B, latent_dim)`.
        related: which rows show items that were mined as neighbours, `(2B, 2B)` bool.
        shrunk: number of pixels of a full-size image divided by that of the batch's images.
    """

    taught: Posterior | None = None
    small: Tensor | None = None
    related: Tensor | None = None
    shrunk: float = 1.0


class Compared(NamedTuple):
    """A part of the latent and the rows that it is compared over; `small` are the small views of those pairs."""

    number: int
    rows: Tensor | slice
    latent: Tensor
    small: Tensor | None


class Objectives(nn.Module):
    """The terms that a recipe adds, and their own parameters, which never ship.

    Args:
        latent_dim: size of the model's latents.
        teacher: if the settings include one.
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

    @property
    def has_terms(self) -> bool:
        """Whether the recipe adds any term."""
        settings = self.settings
        return settings.has_two_views or settings.foreground > 0

    def forward(
        self, loss: Loss, items: Tensor, mask: Tensor | None = None, extras: Extras | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the weighted terms in nats per image, and each term before its weight.

        Args:
            loss: loss of a batch whose halves are the first and the second views; consistency and teacher need a
                posterior.
            items: item number of each row `(2B,)`.
            mask: mask of the batch, see `Batch`.
        """
        extra = torch.zeros_like(loss.objective)
        scalars: dict[str, Tensor] = {}
        for name, weight, nats in self._terms(loss, items, mask, extras or Extras()):
            extra = extra + weight * nats
            scalars[name] = nats.detach()
        return extra, scalars

    def _terms(self, loss: Loss, items: Tensor, mask: Tensor | None, extras: Extras) -> Iterator[Term]:
        settings = self.settings
        if settings.consistency > 0:
            if loss.posterior is None:
                raise ValueError("consistency needs a model with a posterior")
            yield "consistency", settings.consistency, consistency(loss.posterior)
        if settings.contrastive is not None:
            nats = self._contrast(loss.latent, items, extras, settings.contrastive.temperature)
            yield "contrastive", settings.contrastive.weight, nats
        if settings.foreground > 0 and mask is not None:
            if loss.foreground is None:
                raise ValueError("foreground needs a model that predicts it")
            yield "foreground", settings.foreground, foreground_nats(loss.foreground, mask, shrunk=extras.shrunk)
        if settings.teacher is not None:
            if loss.posterior is None or extras.taught is None:
                raise ValueError("teacher needs a model with a posterior, and the teacher's posteriors of the views")
            yield "teacher", settings.teacher.weight, taught_nats(extras.taught, loss.posterior, settings.shape_share)
        if settings.prototypes is not None:
            yield "prototypes", settings.prototypes.weight, self._assign(loss.latent, extras.small)

    def _contrast(self, latent: Tensor, items: Tensor, extras: Extras, temperature: float) -> Tensor:
        nats = []
        for part in self._compared(latent, extras.small):
            related = None if extras.related is None else extras.related[part.rows][:, part.rows]
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
        # A part without a pair leaves its prototypes out, but several devices expect a gradient for all parameters.
        nothing = 0.0 * torch.stack([each.weight.sum() for each in cast(list[Prototypes], self.prototypes)]).sum()
        return torch.stack(nats).mean() + nothing

    def _compared(self, latent: Tensor, small: Tensor | None) -> Iterator[Compared]:
        share = self.settings.shape_share
        if share == 0:
            yield Compared(0, slice(None), self.head(latent), None if small is None else self.head(small))
            return
        for part in parts_of(latent, share):
            pairs = len(latent) // 2
            of_part = part.rows[: len(part.rows) // 2]
            views = None if small is None else small.reshape(-1, pairs, small.shape[1])
            some = None if views is None else views[:, of_part, part.latents].flatten(0, 1)
            yield Compared(part.number, part.rows, latent[:, part.latents][part.rows], some)


def build_objectives(settings: Objective, model: Any, examples: Examples) -> Objectives:
    """Build the objectives for a model, with the size of the latents taken from an example.

    Raises:
        RecipeError: a part of the latent would be empty.
    """
    teacher = None if settings.teacher is None else Teacher(model, settings.teacher.decay)
    has_head = settings.contrastive is not None and settings.contrastive.projection is not None
    if not has_head and settings.prototypes is None and settings.shape_share == 0:
        return Objectives(settings, 0, teacher)
    with in_use(model):
        latent_dim = model.latent(examples.images[:1].float() / 255.0).shape[1]
    if settings.shape_share > 0 and looks_of(latent_dim, settings.shape_share) in (0, latent_dim):
        share = f"objective.contrastive.shape_share {settings.shape_share:g}"
        raise RecipeError(f"{share} leaves a part of the {latent_dim} latents empty; choose a value nearer to 0.5")
    return Objectives(settings, latent_dim, teacher)
