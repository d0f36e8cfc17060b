"""pgvector behind the `VectorIndex` protocol: the vectors are in a table of PostgreSQL, and are searched there.

A `flat` index holds 32 bits a number and compares every vector. An `hnsw` index holds 16 bits a number and walks along
pgvector's graph. Scores are those of `indexer.vectors.faiss`, of the stored vectors and the query with 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Protocol

import numpy as np

from indexer.errors import CorruptError, IndexerError
from indexer.vectors import Allowed, Floats, IndexOptions, Ints, Kind, Neighbours, Shape
from indexer.vectors.approximate import ApproximateIndex
from training.reference import Metric

ENGINE = "pgvector"
LINKS = 16  # of each vector in a graph; twice that at its lowest level
FLAT, HNSW = f"{ENGINE} Flat", f"{ENGINE} HNSW{LINKS},halfvec"  # factory strings
LARGEST_EF = 1000  # pgvector's
LARGEST_DIM = {"flat": 16_000, "hnsw": 4_000}  # pgvector's, of vectors in a table and of 16 bits in a graph
FLAT_COST = 5e6  # nanoseconds of an exact search that needs no graph
# Costs in nanoseconds on one core, measured with vectors of 64 numbers; besides FLAT_COST, only their ratios matter.
READ = 100.0  # a row, when all are read
CHECKED = 60.0  # whether a position is allowed
COMPARED, NUMBER = 400.0, 5.0  # a vector that is compared exactly, and each of its numbers
FETCHED = 3500.0  # a row, when it is fetched by its position
VISITED = 12  # vectors that a walk compares for each candidate that it keeps
WALKED = 1100.0  # a vector that a walk compares
ASKED = 10  # times the vectors that a walk should compare under a filter, after which it gives up


class Table(Protocol):
    """What an index needs of the table with its vectors; see `indexer.catalogue.vector_table`."""

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> Metric: ...

    def shape(self) -> Shape: ...

    def proposed(
        self, queries: Floats, candidates: int, *, ef: int, visited: int, allowed: Allowed | None
    ) -> Neighbours: ...

    def nearest(self, queries: Floats, k: int, allowed: Allowed | None, *, fetched: bool) -> Neighbours: ...

    def rows_at(self, positions: Ints, dim: int) -> Floats: ...


class PgvectorIndex(ApproximateIndex):
    """An index in a table that is never modified; many threads may search it.

    Args:
        parameters: `ef` of a graph.
    """

    def __init__(self, table: Table, count: int, dim: int, *, parameters: Mapping[str, int] | None = None) -> None:
        self._table = table
        self.count, self.dim = count, dim
        self.parameters: Mapping[str, int] = dict(parameters or {})
        self.is_exact = not self.parameters
        self.factory = FLAT if self.is_exact else HNSW

    @classmethod
    def read(cls, table: Table, factory: str, parameters: Mapping[str, int]) -> PgvectorIndex:
        """Open the index in a table.

        Raises:
            CorruptError: the table is missing, or does not hold what the factory string says.
        """
        shape = table.shape()
        if shape.is_halves != bool(parameters) or (parameters and not shape.has_graph):
            raise CorruptError(f"the table {table.name} does not hold the {factory} that the manifest says")
        return cls(table, shape.rows, shape.dim, parameters=parameters)

    def vectors_at(self, positions: Ints) -> Floats:
        return self._table.rows_at(positions, self.dim)

    def search_exactly(self, queries: Floats, k: int, allowed: Allowed | None = None) -> Neighbours:
        k = min(k, self.count)
        if not k or (allowed is not None and not allowed.count):
            return Neighbours(np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64))
        fetched = allowed is not None and self._cost_of_fetching(allowed) < self._cost_of_reading(allowed)
        return self._bounded(self._table.nearest(queries, k, allowed, fetched=fetched))

    def proposed(self, queries: Floats, candidates: int, effort: float, allowed: Allowed | None) -> Neighbours:
        wanted = ceil(self.parameters["ef"] * effort)
        found = self._table.proposed(
            queries, candidates,
            ef=min(wanted, LARGEST_EF), visited=ASKED * VISITED * max(wanted, candidates), allowed=allowed,
        )  # fmt: skip
        return self._bounded(found)

    @property
    def candidates(self) -> int:
        return self.parameters["ef"]

    def cost(self, effort: float) -> float:
        return self.parameters["ef"] * effort * VISITED * WALKED

    def cost_of_all(self, allowed: Allowed | None) -> float:
        reading = self._cost_of_reading(allowed)
        return reading if allowed is None else min(reading, self._cost_of_fetching(allowed))

    def _cost_of_reading(self, allowed: Allowed | None) -> float:
        if allowed is None:
            return _cost_of_scan(self.count, self.dim)
        return self.count * (READ + CHECKED) + allowed.count * (COMPARED + self.dim * NUMBER)

    def _cost_of_fetching(self, allowed: Allowed) -> float:
        return allowed.count * (FETCHED + COMPARED + self.dim * NUMBER)

    def _bounded(self, found: Neighbours) -> Neighbours:
        if self._table.metric == "cosine" and not self.is_exact:
            np.minimum(found.scores, 1.0, out=found.scores)  # vectors of 16 bits are a little longer or shorter than 1
        return found


def chosen_kind(count: int, dim: int, options: IndexOptions) -> Kind:
    """The kind of index for `count` vectors `(dim,)`: exact search while it is fast enough, then a graph if it can be.

    Raises:
        IndexerError: pgvector has no such index.
    """
    is_flat = _cost_of_scan(count, dim) <= FLAT_COST or dim > LARGEST_DIM["hnsw"]
    kind = options.kind or ("flat" if is_flat else "hnsw")
    if kind not in LARGEST_DIM:
        raise IndexerError(
            f"only FAISS has index kind {kind!r}; choose --index-kind hnsw, flat or auto with NITAMONO_VECTORS=pgvector"
        )
    check_dim(kind, dim)
    return kind


def check_dim(kind: Kind, dim: int) -> None:
    """Raise `IndexerError` if vectors have more dimensions than pgvector's index of a kind supports."""
    if dim > LARGEST_DIM[kind]:
        remedy = "choose --index-kind flat, which compares every vector, or " if dim <= LARGEST_DIM["flat"] else ""
        raise IndexerError(
            f"pgvector's {kind} index supports at most {LARGEST_DIM[kind]:,} dimensions; the encoder has {dim:,}; "
            f"{remedy}use an encoder with fewer, or NITAMONO_VECTORS=faiss"
        )


def _cost_of_scan(count: int, dim: int) -> float:
    return count * (READ + COMPARED + dim * NUMBER)
