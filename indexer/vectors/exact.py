"""Exact search by brute force: the reference for every index, and scores for re-ranking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Floats, Ints, Neighbours, VectorIndex
from training.reference import Metric

RECALL_AT = 10
RECALL_QUERIES = 64  # stored vectors that the recall of an exact index is measured with
ROUNDING = 1e-5  # between equal scores that are computed in different orders
BLOCK_NUMBERS = 2**22  # numbers of stored vectors that are compared at a time


def exact_scores(queries: Floats, vectors: Floats, metric: Metric) -> Floats:
    """Scores `(nq, n)` as `FaissIndex.search` returns them: cosines, or negated distances for L2."""
    products: Floats = queries @ vectors.T
    if metric == "cosine":
        return products
    squared = (queries**2).sum(1)[:, None] - 2 * products + (vectors**2).sum(1)[None]
    distances: Floats = np.sqrt(np.maximum(squared, 0.0))
    return -distances


def exact_neighbours(
    queries: Floats,
    vectors: NDArray[np.floating],
    k: int,
    metric: Metric,
    positions: Ints | None = None,
) -> Neighbours:
    """The `k` nearest of `queries` `(nq, dim)` among stored vectors `(n, dim)`, in bounded memory.

    Args:
        vectors: may be mapped from a file, and of 16 or 32 bits.
        positions: `(m,)`, those to compare; None for all.
    """
    count = len(vectors) if positions is None else len(positions)
    k = min(k, count)
    best = Neighbours(np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64))
    rows = max(1, BLOCK_NUMBERS // max(1, vectors.shape[1]))
    for start in range(0, count if k else 0, rows):
        block = np.arange(start, min(start + rows, count)) if positions is None else positions[start : start + rows]
        values = vectors[start : start + rows] if positions is None else vectors[block]
        scores = exact_scores(queries, np.asarray(values, np.float32), metric)
        best = _best_of(best, scores, block, k)
    return best


def _best_of(best: Neighbours, scores: Floats, positions: Ints, k: int) -> Neighbours:
    """The `k` best of those found so far and of `scores` `(nq, m)`; of equals, the one at the lower position."""
    if scores.shape[1] > k:
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, found = np.take_along_axis(scores, top, axis=1), positions[top]
    else:
        found = np.broadcast_to(positions, scores.shape)
    scores, found = np.concatenate([best.scores, scores], axis=1), np.concatenate([best.positions, found], axis=1)
    order = np.lexsort((found, -scores), axis=1)[:, :k]
    return Neighbours(np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1))


class Truth(NamedTuple):
    """Queries with the scores of their exact neighbours, to measure recall with.

    Args:
        queries: `(nq, dim)`.
        kth_best: `(nq,)`, score of the last of the `RECALL_AT` nearest.
        vectors: `(n, dim)`, which are searched.
    """

    queries: Floats
    kth_best: Floats
    vectors: NDArray[np.floating]
    metric: Metric

    @classmethod
    def of(cls, queries: Floats, vectors: NDArray[np.floating], metric: Metric) -> Truth:
        scores = exact_neighbours(queries, vectors, RECALL_AT, metric).scores
        return cls(queries, scores[:, -1], vectors, metric)

    def recalls(self, found: Ints) -> NDArray[np.float64]:
        """Recall `(nq,)` of the positions `(nq, RECALL_AT)` that were found, -1 for none.

        A neighbour as near as the last of the nearest is correct, whichever of the ties it is.
        """
        correct = np.zeros(found.shape, dtype=bool)
        tolerance = ROUNDING * (np.abs(self.kth_best) if self.metric == "l2" else np.ones_like(self.kth_best))
        for row, positions in enumerate(found):
            values = np.asarray(self.vectors[np.maximum(positions, 0)], np.float32)
            scores = exact_scores(self.queries[row : row + 1], values, self.metric)[0]
            correct[row] = (positions >= 0) & (scores >= self.kth_best[row] - tolerance[row])
        recalls: NDArray[np.float64] = correct.mean(axis=1)
        return recalls


def recall_against_exact(index: VectorIndex, vectors: NDArray[np.floating], metric: Metric) -> float:
    """Mean recall@10 of an index against exact search, over evenly spaced stored vectors `(n, dim)`."""
    if not len(vectors):
        return 1.0
    queries = np.asarray(vectors[:: max(1, len(vectors) // RECALL_QUERIES)][:RECALL_QUERIES], np.float32)
    truth = Truth.of(queries, vectors, metric)
    return float(truth.recalls(index.search(queries, RECALL_AT).positions).mean())
