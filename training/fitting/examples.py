"""Training images as tensors with their masks and labels, and the batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.parallel.share import Share, share_of


@dataclass(frozen=True)
class Examples:
    """Images with their masks and labels; read-only.

    Args:
        images: `(N, C, S, S)` uint8; drawings are `(N, N_max, 5)` float32, see `training.sketches`.
        items: item number of each image, `(N,)` int64.
        masks: coverage by the item `(N, S, S)` uint8, 255 throughout for images without a usable mask; None if the
            recipe needs no masks.
        has_mask: whether the image has a usable mask, `(N,)` bool.
        labels: `(N,)` int64; None without a condition.
    """

    images: Tensor
    items: Tensor
    masks: Tensor | None = None
    has_mask: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __deepcopy__(self, memo: dict[int, Any]) -> Examples:
        return self  # the moving average copies the module that holds the examples, which may be gigabytes

    def take(self, positions: Tensor) -> Examples:
        return self._each(lambda tensor: tensor[positions])

    def to(self, device: torch.device | str) -> Examples:
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Examples:
        masks, has_mask, labels = (
            None if tensor is None else change(tensor) for tensor in (self.masks, self.has_mask, self.labels)
        )
        return Examples(change(self.images), change(self.items), masks, has_mask, labels)


class Part(NamedTuple):
    """A process's examples of a batch, and its share."""

    examples: Examples
    share: Share


class Batches:
    """A process's part of the batches of examples in a given order, with its share of each.

    Args:
        size: of the batch that all processes share.
        order: positions of the first views.
        others: positions of the second views, aligned with `order`; they fill the second half of each batch.
        rank, processes: number of this process, and of all.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        order: Tensor,
        others: Tensor | None = None,
        *,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.examples = examples
        self.size = size
        self.order = order
        self.others = others
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Part]:
        for start in range(0, len(self.order), self.size):
            share = share_of(min(self.size, len(self.order) - start), self.rank, self.processes)
            units = slice(start + share.start, start + share.stop)
            positions = self.order[units]
            if self.others is not None:
                positions = torch.cat([positions, self.others[units]])
            yield Part(self.examples.take(positions), share)


def other_photos(items: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """For each example `(N,)`, the position of another photo of its item with a given probability, or its own."""
    by_item = torch.argsort(items, stable=True)
    _, inverse, counts = torch.unique_consecutive(items[by_item], return_inverse=True, return_counts=True)
    starts = torch.cumsum(counts, 0) - counts
    start, count = starts[inverse], counts[inverse]
    rank = torch.arange(len(items)) - start
    step = 1 + torch.floor(torch.rand(len(items), generator=generator) * (count - 1)).long()
    other = by_item[start + (rank + step) % count]
    is_other = (torch.rand(len(items), generator=generator) < probability) & (count > 1)
    partners = torch.empty_like(by_item)
    partners[by_item] = torch.where(is_other, other, by_item)
    return partners
