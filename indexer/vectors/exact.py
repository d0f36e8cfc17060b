"""Exact search by brute force: the oracle of every index, and the scores that a second stage needs."""

from __future__ import annotations

import numpy as np

from indexer.vectors import Floats, VectorIndex
from training.reference import Metric

RECALL_QUERIES = 64


def exact_scores(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """`(nq, n)` scores by brute force, as `FaissIndex.search` gives them."""
    products: Floats = queries @ vectors.T
    if metric == "cosine":
        return products
    squared = (queries**2).sum(1)[:, None] - 2 * products + (vectors**2).sum(1)[None]
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return -distances


def recall_against_exact(index: VectorIndex, vectors: Floats, metric: Metric, k: int = 10) -> float:
    """Mean share of the true `k` nearest that the index returns, ties allowed, over evenly spread stored vectors."""
    if not len(vectors):
        return 1.0
    k = min(k, len(vectors))
    step = max(1, len(vectors) // RECALL_QUERIES)
    queries = vectors[::step][:RECALL_QUERIES]
    exact = exact_scores(queries, vectors, metric)
    kth_best = np.partition(exact, -k, axis=1)[:, -k]
    found = index.search(queries, k)
    scores = np.take_along_axis(exact, found.positions, axis=1)
    # A neighbour as near as the k-th nearest is right, whichever of the equals it is; rounding blurs "as near".
    return float((scores >= kth_best[:, None] - 1e-4).mean())
