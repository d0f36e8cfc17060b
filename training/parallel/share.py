"""The part of a batch that a process has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class Share(NamedTuple):
    """Units `start` to `stop` of the `total` units of a batch, which `processes` processes share.

    A unit is an example, or a pair of views. The rows of a tensor are blocks of one row for each unit: one block of
    examples; two blocks of views, the first ones and the second ones; or a block for each sample of a latent.
    """

    start: int
    stop: int
    total: int
    processes: int = 1

    @property
    def is_whole(self) -> bool:
        return self.stop - self.start == self.total

    @property
    def weight(self) -> float:
        """Weight of the mean over this process's rows, so that the mean over processes is that over all rows."""
        return 1.0 if self.is_whole else self.processes * (self.stop - self.start) / self.total

    def rows_of_all(self, rows: int) -> int:
        """Number of rows that all processes have together, where this one has `rows`."""
        return rows if self.is_whole else rows // (self.stop - self.start) * self.total

    def own(self, x: Tensor) -> Tensor:
        """This process's rows of a tensor with the rows of all processes."""
        if self.is_whole:
            return x
        return x.reshape(-1, self.total, *x.shape[1:])[:, self.start : self.stop].flatten(0, 1)


def share_of(total: int, rank: int, processes: int) -> Share:
    """The share of process number `rank`.

    Parts differ by at most one unit. If there are fewer units than processes, each process has the whole batch.
    """
    if total < processes:
        return Share(0, total, total)
    start, stop = (total * number // processes for number in (rank, rank + 1))
    return Share(start, stop, total, processes)


_current: ContextVar[Share | None] = ContextVar("share", default=None)


def current_share() -> Share | None:
    """The share of the step under way; None outside of a step, and if this process has the whole batch."""
    return _current.get()


@contextmanager
def sharing(share: Share) -> Iterator[None]:
    """Within it, this process has a share of the batch."""
    token = _current.set(None if share.is_whole else share)
    try:
        yield
    finally:
        _current.reset(token)
