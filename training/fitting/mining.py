"""`objective.mined`: photos, or drawings, that are mutual nearest neighbours serve as second views of each other.

The catalogue may teach what two views of one photo cannot (another pose, or a variant sold as another item). From a
given epoch, all training photos are embedded unchanged every few epochs; two photos of different items are neighbours
if each is among the other's k nearest by cosine. Reciprocal neighbours as positives of a contrastive loss: Deng et al.:
InsCLR: Improving Instance Retrieval with Self-Supervision, AAAI 2022, https://arxiv.org/abs/2112.01390; reciprocity:
Qin, Gammeter, Bossard, Quack, van Gool: Hello Neighbor: Accurate Object Retrieval with k-Reciprocal Nearest Neighbors,
CVPR 2011.

Differs from InsCLR: neighbours are searched among all photos instead of the batch and a memory bank; there is no
threshold on the similarity; neighbouring items are not negatives of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from training.fitting.examples import Examples
from training.fitting.modes import in_use
from training.parallel.share import Share, share_of, sharing
from training.parallel.sums import gathered
from training.protocols import Batch
from training.recipes.objective import Mined as Settings

Plain = Callable[[Examples], Batch]
BLOCK_NUMBERS = 4_000_000  # cosines in memory at a time: 16 MB


class Mined(NamedTuple):
    """The neighbours that were found at the start of an epoch.

    Args:
        neighbours: positions of the neighbours of each example `(N, k)`, padded with -1.
        pairs: sorted keys of the pairs of neighbouring items; see `related`.
        items: largest item number plus one.
        epoch: the epoch.
    """

    neighbours: Tensor
    pairs: Tensor
    items: int
    epoch: int

    @classmethod
    def of(cls, neighbours: Tensor, items: Tensor, epoch: int) -> Mined:
        """Build from the neighbours of examples and their items `(N,)`."""
        count = int(items.max()) + 1
        row, column = torch.nonzero(neighbours >= 0, as_tuple=True)
        pairs = items[row] * count + items[neighbours[row, column]]
        return cls(neighbours, torch.unique(pairs), count, epoch)

    @property
    def share(self) -> float:
        """Fraction of the examples that have a neighbour."""
        return float((self.neighbours >= 0).any(dim=1).float().mean())

    def related(self, items: Tensor) -> Tensor:
        """Which items `(B,)` of a batch are neighbours, `(B, B)` bool; an item is not a neighbour of itself."""
        keys = items[:, None] * self.items + items[None, :]
        if not len(self.pairs):
            return torch.zeros_like(keys, dtype=torch.bool)
        pairs = self.pairs.to(items.device)
        return pairs[torch.searchsorted(pairs, keys).clamp(max=len(pairs) - 1)] == keys


def is_due(settings: Settings, epoch: int, mined: Mined | None) -> bool:
    """Whether the start of an epoch calls for a new search, and it has not been made yet."""
    since = epoch - settings.start
    return since >= 0 and since % settings.every == 0 and (mined is None or mined.epoch < epoch)


def mine(
    model: Any,
    plain: Plain,
    examples: Examples,
    settings: Settings,
    epoch: int,
    batch_size: int,
    share: Share | None = None,
) -> Mined:
    """Embed all examples as `plain` shows them, unchanged, and find their mutual neighbours.

    Args:
        share: the examples that this process embeds; None for all of them.
    """
    share = share or share_of(len(examples), 0, 1)
    device = next(model.parameters()).device
    latents = []
    with in_use(model), sharing(share):
        for rows in torch.split(torch.arange(share.start, share.stop), batch_size):
            x = plain(examples.take(rows)).x
            latents.append(model.latent(x.to(device)).float())
        embedded = gathered(torch.cat(latents))
    neighbours = mutual_neighbours(embedded, examples.items.to(device), settings.neighbours)
    return Mined.of(neighbours.cpu(), examples.items, epoch)


def mutual_neighbours(latents: Tensor, items: Tensor, count: int) -> Tensor:
    """Positions `(N, count)` of the mutual neighbours of each example by cosine, padded with -1.

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
    """Second views `(N,)`, replaced by a random neighbour with probability `share` for examples that have one."""
    ordered = mined.neighbours.sort(dim=1, descending=True).values  # -1 last
    count = (ordered >= 0).sum(dim=1)
    chosen = torch.floor(torch.rand(len(ordered), generator=generator) * count).long()
    is_lent = (torch.rand(len(ordered), generator=generator) < share) & (count > 0)
    return torch.where(is_lent, ordered.gather(1, chosen[:, None]).squeeze(1), partners)
