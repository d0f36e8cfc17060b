"""Builds the index of a collection in a table of PostgreSQL; see `indexer.vectors.building`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Floats
from indexer.vectors.building import (
    BUILDING_EF,
    EFFORTS,
    Built,
    Plan,
    blocks_of,
    fits_halves,
    least_effort,
    warn_if_low,
)
from indexer.vectors.exact import Truth, recall_against_exact
from indexer.vectors.pgvector import LARGEST_EF, LINKS, PgvectorIndex, Table, check_dim

LARGEST_MEMORY = 2**30  # bytes that the server is asked for while it builds a graph; it may have been told more
OF_A_NODE = 400  # bytes of a vector in a graph that is being built, besides its numbers


class NewTable(Table, Protocol):
    """A table that is being built; see `indexer.catalogue.vector_table`."""

    def create(self, dim: int, *, halves: bool) -> None: ...

    def append(self, start: int, blocks: Iterable[Floats], *, halves: bool) -> None: ...

    def add_graph(self, links: int, candidates: int, memory: int) -> None: ...

    def analyse(self) -> None: ...


def build_table(vectors: NDArray[np.floating], plan: Plan, table: NewTable) -> Built:
    """Build an index of `vectors` `(n, dim)`, which may be mapped from a file; a block of them is in memory.

    Raises:
        IndexerError: they have too many numbers.
    """
    count, dim = vectors.shape
    halves = plan.kind == "hnsw" and fits_halves(vectors)
    known = vectors[: count - plan.held_out] if halves else vectors
    check_dim("hnsw" if halves else "flat", dim)
    table.create(dim, halves=halves)
    table.append(0, blocks_of(known), halves=halves)
    if not halves:
        table.analyse()
        exact = PgvectorIndex(table, count, dim)
        return Built(exact, [], recall_against_exact(exact, vectors, table.metric))
    table.add_graph(LINKS, BUILDING_EF, min(LARGEST_MEMORY, count * (OF_A_NODE + 2 * dim)))
    table.analyse()

    def made(ef: int, number: int) -> PgvectorIndex:
        return PgvectorIndex(table, number, dim, parameters={"ef": ef})

    queries = np.asarray(vectors[len(known) :], np.float32)
    tuning, measuring = (Truth.of(half, known, table.metric) for half in np.array_split(queries, 2))
    efforts = [ef for ef in EFFORTS if ef <= LARGEST_EF]
    ef = least_effort(efforts, lambda ef: made(ef, len(known)), tuning, plan) or efforts[-1]
    recall = warn_if_low(made(ef, len(known)), measuring, plan)
    table.append(len(known), blocks_of(vectors[len(known) :]), halves=True)
    return Built(made(ef, count), [], recall)
