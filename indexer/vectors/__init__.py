"""Vector indexes: one protocol, one file per engine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Neighbours(NamedTuple):
    """Per query the `k` best: scores `(nq, k)`, higher is nearer, and positions `(nq, k)`; -1 where there are fewer."""

    scores: Floats
    positions: Ints


class VectorIndex(Protocol):
    """An immutable index over `count` vectors, named by position."""

    @property
    def count(self) -> int: ...

    @property
    def factory(self) -> str: ...

    def search(self, queries: Floats, k: int, allowed: NDArray[np.bool_] | None = None) -> Neighbours:
        """Search `queries` `(nq, dim)` among all positions, or among those where `allowed` `(count,)` is True."""
        ...

    def vectors_at(self, positions: Ints) -> Floats:
        """The stored vectors `(m, dim)` at positions `(m,)`."""
        ...

    def write(self, path: Path) -> None: ...
