"""How good an encoder of drawings is: retrieval by category, and whether its samples end as drawings do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.sketches.encoder import Drawn
from training.sketches.raster import draw_strokes
from training.sketches.strokes import Points

PIXELS = 28  # side of the pictures of the baseline
DRAWS = 1_000  # of the bootstrap
Vectors = NDArray[np.float32]


class Retrieval(NamedTuple):
    """Precision of drawings of the query's category among the k nearest others: the mean, and a 95 % interval."""

    precision: float
    low: float
    high: float


class Lengths(NamedTuple):
    """Points per drawing, and the share that ends before N_max rows."""

    ended: float
    mean: float
    p05: float
    median: float
    p95: float


def precision_at(vectors: Vectors, categories: Sequence[str], k: int) -> NDArray[np.float64]:
    """Precision at k `(Q,)` of each drawing whose category has others, searched for among all others, by cosine.

    Args:
        vectors: `(N, dim)`, unit norm.
        k: at most N - 1; with fewer others in a category than k, 1 cannot be reached.
    """
    labels = np.unique(np.asarray(categories), return_inverse=True)[1]
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argpartition(-scores, min(k, len(scores) - 1) - 1, axis=1)[:, :k]
    hits: NDArray[np.float64] = (labels[nearest] == labels[:, None]).mean(axis=1)
    return hits[queries(categories)]


def queries(categories: Sequence[str]) -> NDArray[np.bool_]:
    """Which drawings `(N,)` have others of their category."""
    _, labels, counts = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    found: NDArray[np.bool_] = counts[labels] > 1
    return found


def interval(values: NDArray[np.float64], groups: NDArray[np.generic], seed: int = 0) -> Retrieval:
    """The mean of values `(Q,)`, with a percentile bootstrap over their groups, since drawings of one are alike."""
    _, labels = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(labels, values), np.bincount(labels)
    chosen = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Retrieval(float(values.mean()), float(low), float(high))


def pixel_vectors(drawings: Sequence[Sequence[Points]]) -> Vectors:
    """The baseline: drawings as pictures of 28 x 28 pixels, ink as values `(N, 784)`, unit norm."""
    ink = np.stack([255.0 - draw_strokes(strokes, PIXELS, width=2.0) for strokes in drawings])
    flat = ink.reshape(len(ink), -1).astype(np.float32)
    vectors: Vectors = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return vectors


def lengths(points: NDArray[np.integer], has_ended: NDArray[np.bool_]) -> Lengths:
    """Of drawings with these numbers of points `(N,)`."""
    low, middle, high = np.quantile(points, [0.05, 0.5, 0.95])
    return Lengths(float(has_ended.mean()), float(points.mean()), float(low), float(middle), float(high))


def lengths_of_drawn(drawn: Sequence[Drawn]) -> Lengths:
    """Of drawings that a model made."""
    return lengths(np.array([each.points for each in drawn]), np.array([each.has_ended for each in drawn]))
