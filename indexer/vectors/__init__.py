"""Vector indexes: a protocol and one module per engine; `engines` says which engine builds and reads an index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Kind = Literal["flat", "hnsw", "ivf", "ivf-pq"]
KINDS: tuple[Kind, ...] = ("flat", "hnsw", "ivf", "ivf-pq")
LARGEST_HALF = 6e4  # number that 16 bits hold with room for rounding


class Neighbours(NamedTuple):
    """The `k` nearest of each query, best first.

    Args:
        scores: `(nq, k)`, higher is nearer.
        positions: `(nq, k)`, -1 if a query has fewer than `k` neighbours.
    """

    scores: Floats
    positions: Ints


class Shape(NamedTuple):
    """What a table holds: vectors of 16 bits a number or 32, and whether a graph leads to them."""

    rows: int
    dim: int
    is_halves: bool
    has_graph: bool


class Allowed:
    """The positions that a search may return; what engines derive from them is computed once.

    Args:
        mask: `(count,)`, True for an allowed position.
    """

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @cached_property
    def positions(self) -> Ints:
        """`(self.count,)`, in ascending order."""
        return np.flatnonzero(self.mask).astype(np.int64)

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """A bit for each position, least significant first."""
        return np.packbits(self.mask, bitorder="little")


@dataclass(frozen=True)
class IndexOptions:
    """How the index of a collection is chosen; None leaves it to the product.

    Args:
        kind: kind of index.
        recall: recall@10 against exact search that an approximate index is tuned to, in (0, 1].
        memory: bytes that the index may take.
    """

    kind: Kind | None = None
    recall: float | None = None
    memory: int | None = None

    def changed(self, kind: Kind | Literal["auto"] | None, recall: float | None, memory: int | None) -> IndexOptions:
        """The options with those that are given in place of their own; `auto` leaves the kind to the product."""
        return IndexOptions(
            self.kind if kind is None else None if kind == "auto" else kind,
            self.recall if recall is None else recall,
            self.memory if memory is None else memory,
        )


class VectorIndex(Protocol):
    """An immutable index over `count` vectors, identified by position."""

    @property
    def count(self) -> int: ...

    @property
    def dim(self) -> int: ...

    @property
    def factory(self) -> str: ...

    @property
    def parameters(self) -> Mapping[str, int]:
        """What searches are tuned by; empty for exact search."""
        ...

    def search(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        """The nearest neighbours of `queries` `(nq, dim)` among the allowed positions.

        An approximate index may miss some, but never returns fewer than `k` if so many positions are allowed.
        """
        ...

    def search_exactly(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        """As `search`, by comparing every allowed vector."""
        ...

    def vectors_at(self, positions: Ints) -> Floats:
        """The stored vectors `(m, dim)` at positions `(m,)`."""
        ...
