"""Vector indexes: a protocol and one module per engine; `engines` says which engine builds and reads an index."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Neighbours(NamedTuple):
    """The `k` nearest of each query, best first.

    Args:
        scores: `(nq, k)`, higher is nearer.
        positions: `(nq, k)`, -1 if a query has fewer than `k` neighbours.
    """

    scores: Floats
    positions: Ints


class VectorIndex(Protocol):
    """An immutable index over `count` vectors, identified by position."""

    @property
    def count(self) -> int: ...

    @property
    def dim(self) -> int: ...

    @property
    def factory(self) -> str: ...

    def search(self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None) -> Neighbours:
        """The nearest neighbours of `queries` `(nq, dim)`, among the positions where `allowed` `(count,)` is True."""
        ...

    def vectors_at(self, positions: Ints) -> Floats:
        """The stored vectors `(m, dim)` at positions `(m,)`."""
        ...

    def write(self, path: Path) -> None:
        """Write an index file; raises `OSError` if the disk is full."""
        ...
