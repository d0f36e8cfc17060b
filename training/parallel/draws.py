"""Random numbers for the rows of a batch: those that one process would have drawn for them.

Every process draws for all rows and keeps its own, so that their generators stay in step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.parallel.share import current_share


class Subset(NamedTuple):
    """Some rows of a batch, `rows` int64 on the device, of the `of` rows that this process has."""

    rows: Tensor
    of: int


_subset: ContextVar[Subset | None] = ContextVar("subset", default=None)


@contextmanager
def drawing_for(rows: Tensor, of: int) -> Iterator[None]:
    """Within it, draws are for some rows alone; every process draws for all of them all the same."""
    token = _subset.set(Subset(rows, of))
    try:
        yield
    finally:
        _subset.reset(token)


def uniform(
    rows: int, *shape: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Uniform draws from [0, 1) from the global generator, `(rows, *shape)`."""
    return _drawn(torch.rand, rows, shape, device=device, dtype=dtype)


def normal(
    rows: int,
    *shape: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draws from N(0, 1), `(rows, *shape)`; without a generator, from the global one."""
    if generator is None:
        return _drawn(torch.randn, rows, shape, device=device, dtype=dtype)
    return _drawn(torch.randn, rows, shape, device=generator.device, dtype=dtype, generator=generator).to(device)


def integers(limit: int, rows: int, device: torch.device | str | None = None) -> Tensor:
    """Uniform draws from 0 to `limit` - 1, `(rows,)` int64."""

    def draw(shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.randint(limit, shape, **options)

    return _drawn(draw, rows, (), device=device)


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """In training, set a fraction `rate` of the values of `(B, ...)` to 0 and scale up the others."""
    if not training or rate == 0.0:
        return x
    kept = uniform(len(x), *x.shape[1:], device=x.device) >= rate
    return torch.where(kept, x / (1.0 - rate), 0.0)


def _drawn(draw: Callable[..., Tensor], rows: int, shape: tuple[int, ...], **options: Any) -> Tensor:
    subset, share = _subset.get(), current_share()
    of = rows if subset is None else subset.of
    if share is not None:
        found = share.own(draw((share.rows_of_all(of), *shape), **options))
    else:
        found = draw((of, *shape), **options)
    return found if subset is None else found[subset.rows]
