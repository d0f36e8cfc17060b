"""Which engine builds a vector index, and which one reads an index file.

The only module that names an engine. Engines are imported when they are first used, so that commands start fast.
"""

from __future__ import annotations

from pathlib import Path

from indexer.vectors import Floats, VectorIndex
from training.reference import Metric


def build_index(vectors: Floats, metric: Metric) -> VectorIndex:
    """Index `vectors` `(n, dim)`, of unit norm for the cosine metric."""
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.build(vectors, metric)


def read_index(path: Path, factory: str) -> VectorIndex:
    """Open an index file.

    Args:
        factory: `VectorIndex.factory` of the index when it was built, as its manifest records it.

    Raises:
        CorruptError: the engine cannot read the file.
    """
    from indexer.vectors.faiss import FaissIndex

    return FaissIndex.read(path, factory)
