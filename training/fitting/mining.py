"""`objective.mined`: photos that are each other's nearest neighbours lend each other second views.

What two views of a photo cannot teach (another pose, another cut of the same thing, sold as another item) the catalogue
itself may: from some epoch on, all training photos are embedded as they are every few epochs, and two photos of
different items are neighbours where each is among the other's k nearest by cosine. Reciprocal neighbours as positives
of a contrast: Deng et al.: InsCLR: Improving Instance Retrieval with Self-Supervision, AAAI 2022,
https://arxiv.org/abs/2112.01390; reciprocity: Qin, Gammeter, Bossard, Quack, van Gool: Hello Neighbor: Accurate Object
Retrieval with k-Reciprocal Nearest Neighbors, CVPR 2011.

Differs from InsCLR: neighbours are looked for among all photos, not in the batch and a memory bank; there is no
threshold on the similarity; items that are neighbours are no negatives of each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.fitting.examples import Examples
from training.fitting.modes import in_use
from training.fitting.views import plain_images
from training.recipes.schema import Mined as Settings

BLOCK_NUMBERS = 4_000_000  # cosines held at a time: 16 MB


class Mined(NamedTuple):
    """What was found at the start of an epoch.

    Args:
        neighbours: positions of each example's neighbours `(N, k)`; -1 where there are fewer.
        pairs: numbers of the pairs of items that are neighbours, rising; see `related`.
        items: one more than the largest number of an item.
        epoch: when they were looked for.
    """

    neighbours: Tensor
    pairs: Tensor
    items: int
    epoch: int

    @classmethod
    def of(cls, neighbours: Tensor, items: Tensor, epoch: int) -> Mined:
        """What follows from the neighbours of examples that show the items `(N,)`."""
        count = int(items.max()) + 1
        row, column = torch.nonzero(neighbours >= 0, as_tuple=True)
        pairs = items[row] * count + items[neighbours[row, column]]
        return cls(neighbours, torch.unique(pairs), count, epoch)

    @property
    def share(self) -> float:
        """Share of the examples that have a neighbour."""
        return float((self.neighbours >= 0).any(dim=1).float().mean())

    def related(self, items: Tensor) -> Tensor:
        """Which of the items `(B,)` of a batch are neighbours, `(B, B)` bool; an item is none of its own."""
        keys = items[:, None] * self.items + items[None, :]
        if not len(self.pairs):
            return torch.zeros_like(keys, dtype=torch.bool)
        pairs = self.pairs.to(items.device)
        return pairs[torch.searchsorted(pairs, keys).clamp(max=len(pairs) - 1)] == keys


def is_due(settings: Settings, epoch: int, mined: Mined | None) -> bool:
    """Whether neighbours are to be looked for at the start of an epoch, and have not been."""
    since = epoch - settings.start
    return since >= 0 and since % settings.every == 0 and (mined is None or mined.epoch < epoch)


def mine(model: Any, examples: Examples, settings: Settings, epoch: int, batch_size: int) -> Mined:
    """Embed all examples as they are and find the neighbours of each."""
    device = next(model.parameters()).device
    latents = []
    with in_use(model):
        for rows in torch.split(torch.arange(len(examples)), batch_size):
            x, _ = plain_images(examples.take(rows))
            latents.append(model.latent(x.to(device)).float())
    neighbours = mutual_neighbours(torch.cat(latents), examples.items.to(device), settings.neighbours)
    return Mined.of(neighbours.cpu(), examples.items, epoch)


def mutual_neighbours(latents: Tensor, items: Tensor, count: int) -> Tensor:
    """Positions `(N, count)` of the examples that each one is a mutual neighbour of, by cosine; -1 fills the rest.

    Args:
        latents: `(N, D)`.
        items: `(N,)`; examples of one item are never neighbours.
    """
    unit = nn.functional.normalize(latents, dim=1)
    blocks = torch.split(torch.arange(len(unit), device=unit.device), max(1, BLOCK_NUMBERS // len(unit)))
    nearest = torch.full((len(unit), count), -1, device=unit.device)
    kept = min(count, len(unit))
    for rows in blocks:
        scores = (unit[rows] @ unit.T).masked_fill(items[rows, None] == items[None, :], -torch.inf)
        best = scores.topk(kept, dim=1)
        nearest[rows, :kept] = torch.where(best.values.isfinite(), best.indices, -1)
    for_each = nearest.clone()
    for rows in blocks:
        theirs = nearest[for_each[rows].clamp(min=0)]  # (b, count, count)
        is_mutual = (theirs == rows[:, None, None]).any(dim=2) & (for_each[rows] >= 0)
        for_each[rows] = torch.where(is_mutual, for_each[rows], -1)
    return for_each


def lend_views(partners: Tensor, mined: Mined, share: float, generator: torch.Generator) -> Tensor:
    """Positions `(N,)` of the second views: a neighbour of the example with a probability, else as they were."""
    ordered = mined.neighbours.sort(dim=1, descending=True).values  # what is -1 comes last
    count = (ordered >= 0).sum(dim=1)
    chosen = torch.floor(torch.rand(len(ordered), generator=generator) * count).long()
    is_lent = (torch.rand(len(ordered), generator=generator) < share) & (count > 0)
    return torch.where(is_lent, ordered.gather(1, chosen[:, None]).squeeze(1), partners)
