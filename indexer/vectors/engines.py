"""Which engine builds a vector index, and which one reads its files.

The only module that names an engine. Engines are imported when they are first used, so that commands start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Floats, IndexOptions, VectorIndex
from training.reference import Metric

if TYPE_CHECKING:
    from indexer.vectors.building import Built, Plan


def exact_index(vectors: Floats, metric: Metric) -> VectorIndex:
    """An exact index in memory of `vectors` `(n, dim)`, of unit norm for the cosine metric."""
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.exact(vectors, metric)


def plan_index(count: int, dim: int, options: IndexOptions) -> Plan:
    """Choose the index of `count` vectors `(dim,)`."""
    from indexer.vectors.building import Plan

    return Plan.of(count, dim, options)


def build_index(vectors: NDArray[np.floating], metric: Metric, plan: Plan, directory: Path) -> Built:
    """Build the index of `vectors` `(n, dim)`, which are in the order of the plan, and write its files."""
    from indexer.vectors.building import build_index

    return build_index(vectors, metric, plan, directory)


def read_index(directory: Path, factory: str, parameters: Mapping[str, int]) -> VectorIndex:
    """Open the index of a generation.

    Args:
        factory, parameters: `VectorIndex.factory` and `VectorIndex.parameters` when it was built, as its manifest has
            them.

    Raises:
        CorruptError: the engine cannot read a file.
    """
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.read(directory, factory, parameters)
