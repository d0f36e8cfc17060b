"""Training images as tensors with their masks and labels, and the second photo of an item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
        is_gpu = torch.device(device).type == "cuda"  # the copy from pinned memory need not be waited for
        return self._each(lambda tensor: tensor.to(device, non_blocking=is_gpu))

    def pinned(self) -> Examples:
        """In memory that a GPU copies from while it computes."""
        return self._each(lambda tensor: tensor.pin_memory())

    @property
    def bytes(self) -> int:
        known = (self.images, self.items, self.masks, self.has_mask, self.labels)
        return sum(tensor.nbytes for tensor in known if tensor is not None)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Examples:
        masks, has_mask, labels = (
            None if tensor is None else change(tensor) for tensor in (self.masks, self.has_mask, self.labels)
        )
        return Examples(change(self.images), change(self.items), masks, has_mask, labels)


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
