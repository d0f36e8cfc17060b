"""Exact search by brute force: the reference for every index, and scores for re-ranking."""

from __future__ import annotations

import numpy as np

from indexer.vectors import Floats, VectorIndex
from training.reference import Metric

RECALL_QUERIES = 64  # stored vectors that recall is measured with
RECALL_AT = 10


def exact_scores(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """Scores `(nq, n)` as `FaissIndex.search` returns them: cosines, or negated distances for L2."""
    products: Floats = queries @ vectors.T
    if metric == "cosine":
        return products
    squared = (queries**2).sum(1)[:, None] - 2 * products + (vectors**2).sum(1)[None]
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return -distances


def recall_against_exact(index: VectorIndex, vectors: Floats, metric: Metric) -> float:
    """Mean recall@10 of the index against exact search, over evenly spaced stored vectors `(n, dim)`; ties count."""
    if not len(vectors):
        return 1.0
    k = min(RECALL_AT, len(vectors))
    step = max(1, len(vectors) // RECALL_QUERIES)
    queries = vectors[::step][:RECALL_QUERIES]
    exact = exact_scores(queries, vectors, metric)
    kth_best = np.partition(exact, -k, axis=1)[:, -k]
    found = index.search(queries, k)
    scores = np.take_along_axis(exact, found.positions, axis=1)
    # A neighbour as near as the k-th nearest is correct, whichever of the ties it is; the tolerance covers rounding.
    return float((scores >= kth_best[:, None] - 1e-4).mean())
