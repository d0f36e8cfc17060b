"""Which engine builds a vector index, and which one reads it.

Indexes are built and read through this module, which imports an engine when it is first used: commands start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CorruptError
from indexer.vectors import Floats, IndexOptions, VectorIndex
from training.reference import Metric

if TYPE_CHECKING:
    from indexer.vectors.building import Built, Plan
    from indexer.vectors.pgvector import Table
    from indexer.vectors.pgvector_building import NewTable

Engine = Literal["faiss", "pgvector"]
ENGINES: tuple[Engine, ...] = ("faiss", "pgvector")


def engine_of(factory: str) -> Engine:
    """The engine of an index, by its factory string."""
    return "pgvector" if factory.startswith("pgvector ") else "faiss"


def exact_index(vectors: Floats, metric: Metric) -> VectorIndex:
    """An exact index in memory of `vectors` `(n, dim)`, of unit norm for the cosine metric."""
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.exact(vectors, metric)


def plan_index(count: int, dim: int, options: IndexOptions, engine: Engine) -> Plan:
    """Choose the index of `count` vectors `(dim,)`.

    Raises:
        IndexerError: the engine has no such index.
    """
    from indexer.vectors.building import Plan

    if engine == "pgvector":
        from indexer.vectors.pgvector import chosen_kind

        return Plan.of(count, dim, options, chosen_kind)
    return Plan.of(count, dim, options)


def build_index(
    vectors: NDArray[np.floating], metric: Metric, plan: Plan, directory: Path, table: NewTable | None
) -> Built:
    """Build the index of `vectors` `(n, dim)`, which are in the order of the plan, in a table or else in files."""
    if table is not None:
        from indexer.vectors.pgvector_building import build_table

        return build_table(vectors, plan, table)
    from indexer.vectors.building import build_index

    return build_index(vectors, metric, plan, directory)


def read_index(directory: Path, factory: str, parameters: Mapping[str, int], table: Table | None = None) -> VectorIndex:
    """Open the index of a generation.

    Args:
        factory, parameters: `VectorIndex.factory` and `VectorIndex.parameters` when it was built, as its manifest has
            them.
        table: where its vectors are if they are not in files.

    Raises:
        CorruptError: the engine cannot read it.
    """
    if engine_of(factory) == "pgvector":
        from indexer.vectors.pgvector import PgvectorIndex

        if table is None:
            raise CorruptError(f"{directory}: its vectors are in a table of PostgreSQL, and the catalogue is not")
        return PgvectorIndex.read(table, factory, parameters)
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.read(directory, factory, parameters)
