"""Fits the typicality of a collection to its own vectors.

Every reference score is of an item that its score was not fitted on: the most similar items are sought among the other
items, and the Gaussian is fitted to the images of the other folds. So a query of the catalogue's kind gets ranks as
held-out items do, even if its item is not in the catalogue.
"""

from __future__ import annotations

import numpy as np

from indexer.typicality.gaussian import Numbers, fit_gaussian
from indexer.typicality.typicality import MIN_ITEMS, NEAREST, TypicalityModel, standardised
from indexer.vectors import Floats, Ints, VectorIndex
from indexer.vectors.rerank import distances_of
from training.reference import Metric

MAX_REFERENCE = 2000  # held-out items: bounds the time, and places the first percentile within .2
FOLDS = 5
BUDGET = 10**9  # multiplications of a covariance: 5,000 vectors of 447 dimensions
MAX_FITTED = 5000  # vectors that a Gaussian is fitted to
COPY = 0.01  # share of the distance to the last neighbour sought: a nearer image is a copy of the same photo
BLOCK = 256  # reference items searched at a time


def fit_typicality(index: VectorIndex, ids: Ints, vectors: Floats, metric: Metric) -> TypicalityModel | None:
    """Fit a score to the vectors of a generation, and rank its held-out items; the same vectors give the same result.

    The time is bounded by that of `MAX_REFERENCE` searches and six principal component analyses within `BUDGET`.

    Args:
        ids: `(count, 2)`, image_id and item key by position.
        vectors: `(count, dim)`, by position.

    Returns:
        None if the collection has fewer than `MIN_ITEMS` items, or all their vectors are equal.
    """
    _, first, items = np.unique(ids[:, 1], return_index=True, return_inverse=True)
    if len(first) < MIN_ITEMS:
        return None
    rng = np.random.default_rng(0)
    fold = rng.permutation(len(first)) % FOLDS  # of each item
    chosen = np.sort(rng.permutation(len(first))[:MAX_REFERENCE])
    positions = first[chosen]
    fitted = np.sort(rng.permutation(len(vectors))[: _fitted_count(*vectors.shape)])
    distances = np.empty((2, len(chosen)))
    try:
        for number in range(FOLDS):
            held_out = fold[chosen] == number
            gaussian = fit_gaussian(vectors[fitted[fold[items[fitted]] != number]])
            distances[1, held_out] = gaussian.squared_distances(vectors[positions[held_out]])
        gaussian = fit_gaussian(vectors[fitted])
    except ValueError:
        return None
    distances[0] = mean_distances(index, items, vectors, positions, metric)
    centres, scales = distances.mean(axis=1), distances.std(axis=1)
    if not (scales > 0).all():
        return None
    return TypicalityModel(gaussian, centres, scales, np.sort(standardised(distances, centres, scales)))


def _fitted_count(count: int, dim: int) -> int:
    """Number of vectors `n` that fit into `BUDGET`: n dim min(n, dim)."""
    fitting = BUDGET // dim**2 if BUDGET >= dim**3 else int((BUDGET / dim) ** 0.5)
    return max(2, min(count, MAX_FITTED, fitting))


def mean_distances(index: VectorIndex, items: Ints, vectors: Floats, positions: Ints, metric: Metric) -> Numbers:
    """Mean distance `(m,)` of the images at positions `(m,)` to their `NEAREST` most similar other items.

    An item is as distant as its nearest image. Copies of the same photo under another item are left out.

    Args:
        items: `(count,)`, the item of each position.
    """
    found = np.zeros(len(positions))
    for start in range(0, len(positions), BLOCK):
        pending, k = np.arange(start, min(start + BLOCK, len(positions))), 4 * NEAREST
        while len(pending):
            k = min(k, index.count)
            near = index.search(vectors[positions[pending]], k)
            distances = distances_of(near.scores, metric)
            best = [
                _others(items[row], away, items[at])
                for row, away, at in zip(near.positions, distances, positions[pending], strict=True)
            ]
            enough = np.array([len(away) == NEAREST or k == index.count for away in best])
            for place, away in zip(pending[enough], (b for b, e in zip(best, enough, strict=True) if e), strict=True):
                found[place] = away.mean() if len(away) else 0.0
            pending, k = pending[~enough], 4 * k
    return found


def _others(items: Ints, distances: Numbers, own: np.int64) -> Numbers:
    """Distances of the nearest other items, at most `NEAREST`, given those of images, nearest first."""
    other = (items != own) & (distances > COPY * distances[-1])
    _, first = np.unique(items[other], return_index=True)
    nearest: Numbers = distances[other][np.sort(first)[:NEAREST]]
    return nearest
