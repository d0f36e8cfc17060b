"""Neighbour lists of an index's own vectors, computed in blocks."""

from __future__ import annotations

import numpy as np

from indexer.vectors import Floats, VectorIndex
from indexer.vectors.rerank import NeighbourLists

BLOCK = 1024  # vectors searched at a time


def nearest_others(index: VectorIndex, vectors: Floats, k: int) -> NeighbourLists:
    """The `k` nearest other vectors of each of the index's own vectors `(n, dim)`, at most n - 1.

    Memory besides the result is bounded by one block of 1,024 queries.
    """
    k = max(0, min(k, len(vectors) - 1))
    positions = np.empty((len(vectors), k), np.int32)
    scores = np.empty((len(vectors), k), np.float32)
    for start in range(0, len(vectors) if k else 0, BLOCK):
        found = index.search(vectors[start : start + BLOCK], k + 1)
        other = found.positions != np.arange(start, start + len(found.positions))[:, None]
        other[other.all(axis=1), -1] = False  # a vector with k + 1 equals may not find itself
        positions[start : start + BLOCK] = found.positions[other].reshape(-1, k)
        scores[start : start + BLOCK] = found.scores[other].reshape(-1, k)
    return NeighbourLists(positions, scores)
