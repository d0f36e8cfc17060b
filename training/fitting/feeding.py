"""The batches of an epoch, and where their examples wait: on the GPU if they fit there, otherwise in main memory.

On a GPU they stay 8-bit, so that a step copies nothing; only the numbers of its examples travel. If they do not fit,
a thread takes the examples of the next steps and puts them into pinned memory, from which they are copied while the
GPU computes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from training.fitting.examples import Examples
from training.parallel.share import Share, share_of

RESIDENT = 0.5  # largest fraction of the GPU's free memory that examples take
AHEAD = 2  # steps whose examples are prepared in advance
T = TypeVar("T")
R = TypeVar("R")


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
        pinned: prepare batches in advance, in pinned memory.
        rank, processes: number of this process, and of all.
    """

    def __init__(
        self,
        examples: Examples,
        size: int,
        order: Tensor,
        others: Tensor | None = None,
        *,
        pinned: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.examples = examples
        self.size = size
        self.order = order
        self.others = others
        self.pinned = pinned
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Part]:
        return ahead(self._chosen(), self._part) if self.pinned else map(self._part, self._chosen())

    def _chosen(self) -> Iterator[tuple[Tensor, Share]]:
        """The positions of each batch's examples."""
        for start in range(0, len(self.order), self.size):
            share = share_of(min(self.size, len(self.order) - start), self.rank, self.processes)
            units = slice(start + share.start, start + share.stop)
            positions = self.order[units]
            if self.others is not None:
                positions = torch.cat([positions, self.others[units]])
            yield positions, share

    def _part(self, chosen: tuple[Tensor, Share]) -> Part:
        positions, share = chosen
        examples = self.examples.take(positions.to(self.examples.items.device))
        return Part(examples.pinned() if self.pinned else examples, share)


def fits_on(device: torch.device, *sides: Examples) -> bool:
    """Whether examples fit on a device beside a model; never on the CPU, where they are already."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return sum(side.bytes for side in sides) <= RESIDENT * free


def ahead(arguments: Iterable[T], function: Callable[[T], R]) -> Iterator[R]:
    """The results of a function in the order of its arguments; a thread computes the next ones in advance."""
    with ThreadPoolExecutor(1) as thread:
        pending: deque[Future[R]] = deque()
        for argument in arguments:
            pending.append(thread.submit(function, argument))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
