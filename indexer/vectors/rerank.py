"""Re-ranking by the neighbourhoods of the gallery: pure functions of vectors, scores and neighbour lists.

- `expand_query`: alpha query expansion (Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human
  Annotation, 2019, section 3.4, https://arxiv.org/abs/1711.02512).
- `k_reciprocal`: re-ranking by k-reciprocal encoding (Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification with
  k-reciprocal Encoding, 2017, https://arxiv.org/abs/1701.08398).

Scores are cosines, or negated distances for L2, as in `indexer.vectors`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.vectors import Floats, Ints
from training.reference import Metric

EXPANSION = 10  # neighbours averaged into a query
ALPHA = 3.0  # the paper's
# The paper's 20, 6 and 0.3 suit ten or more photos of each identity. A shop has few photos of an item, and those values
# would drown them among similar items (docs/studies/reranking.md).
K1, K2 = 6, 2
ORIGINAL_SHARE = 0.5  # lambda: weight of the original distance in the final one
DEPTH = 100  # hits to re-rank
TINY = 1e-12


class NeighbourLists(NamedTuple):
    """The k nearest other vectors of each of n vectors, best first: positions and scores, `(n, k)`."""

    positions: NDArray[np.int32]
    scores: Floats

    @classmethod
    def empty(cls, k: int) -> NeighbourLists:
        """Lists of no vectors, `(0, k)`."""
        return cls(np.empty((0, k), np.int32), np.empty((0, k), np.float32))


class _Encodings(NamedTuple):
    """Sparse row vectors over the gallery, sorted by row; the weights of a row sum to 1."""

    rows: Ints
    members: Ints
    weights: NDArray[np.float64]


def expand_query(queries: Floats, neighbours: Floats, metric: Metric) -> Floats:
    """Average each query `(nq, dim)` with neighbours `(k, dim)`, weighted by max(cosine, 0) ** alpha; a query weighs 1.

    Differs from the paper: for L2, the result is a weighted mean and is not normalised.
    """
    weights = np.maximum(_unit(queries) @ _unit(neighbours).T, 0.0) ** ALPHA
    total = queries + weights @ neighbours
    if metric == "cosine":
        return _unit(total)
    mean: Floats = (total / (1 + weights.sum(axis=1, keepdims=True))).astype(np.float32)
    return mean


def k_reciprocal(
    lists: NeighbourLists,
    query: NeighbourLists,
    candidates: Ints,
    guests: NeighbourLists,
    distances: NDArray[np.float64],
    metric: Metric,
    *,
    k2: int = K2,
    original_share: float = ORIGINAL_SHARE,
) -> NDArray[np.float64]:
    """Final distances `(c,)` from one query to candidates, smaller is better (equation 12).

    Every point is encoded over the gallery's vectors by its k-reciprocal neighbours (equations 1 and 3; k1 is the width
    of the lists), extended by the half-sized sets of those neighbours where two thirds overlap (equation 5), weighted
    (equation 7), and averaged with its k2 - 1 nearest (equation 11). The Jaccard distance of two encodings is 1 - sum
    of minima / sum of maxima (equation 10).

    Differs from the paper:

    - The query is not in the gallery's lists, which are computed once. It counts as a mutual neighbour of g if it is at
      least as near to g as g's k-th neighbour.
    - Distances in weights are relative to the distance of the k-th neighbour, which makes them independent of the
      metric's scale; points beyond the lists get a relative distance of 1.
    - Encodings are normalised to a sum of 1, as in the authors' code; a point without mutual neighbours has none.

    Args:
        lists: neighbour lists of the gallery, `(n, k)`.
        query: the query's nearest neighbours in the gallery, `(1, k)`.
        candidates: `(c,)`, positions in the gallery, or -1 - g for guest g.
        guests: nearest neighbours of the candidates that are not in the gallery, `(g, k)`.
        distances: `(c,)`, original distances of the candidates, at least 0.
        original_share: lambda of equation 12.
    """
    k2 = min(k2, lists.positions.shape[1] + 1)
    outside = NeighbourLists(*(np.concatenate(pair) for pair in zip(query, guests, strict=True)))
    inside = candidates[candidates >= 0]
    nodes = np.unique(
        np.concatenate([inside, lists.positions[inside, : k2 - 1].ravel(), outside.positions[:, : k2 - 1].ravel()])
    )
    encoded = _encode(lists, NeighbourLists(lists.positions[nodes], lists.scores[nodes]), nodes, metric)
    outer_sparse = _encode(lists, outside, None, metric)
    support = np.unique(
        np.concatenate(
            [
                outer_sparse.members[outer_sparse.rows == 0],
                encoded.members[np.isin(encoded.rows, np.searchsorted(nodes, query.positions[0, : k2 - 1]))],
            ]
        )
    )
    table, outer = _dense(encoded, len(nodes), support), _dense(outer_sparse, len(outside.positions), support)

    def averaged(own: NDArray[np.float64], near: NDArray[np.int32]) -> NDArray[np.float64]:
        nearest = table[np.searchsorted(nodes, near[:, : k2 - 1])]
        mean: NDArray[np.float64] = (own + nearest.sum(axis=1)) / k2
        return mean

    outer_encodings = averaged(outer, outside.positions)  # of the query, then of the guests
    encodings = np.empty((len(candidates), len(support) + 1))
    encodings[candidates >= 0] = averaged(table[np.searchsorted(nodes, inside)], lists.positions[inside])
    encodings[candidates < 0] = outer_encodings[-candidates[candidates < 0]]
    shared = np.minimum(outer_encodings[:1, :-1], encodings[:, :-1]).sum(axis=1)
    # Sum of minima plus sum of maxima; minima outside the support are 0.
    mass = outer_encodings[0, -1] + encodings[:, -1]
    jaccard = 1 - shared / np.maximum(mass - shared, TINY)
    relative = distances / max(float(distances.max(initial=0.0)), TINY)
    final: NDArray[np.float64] = (1 - original_share) * jaccard + original_share * relative
    return final


def distances_of(scores: Floats, metric: Metric) -> NDArray[np.float64]:
    """Distances of scores: 1 - cosine, or the Euclidean distance; at least 0."""
    values = scores.astype(np.float64)
    return np.maximum(1 - values if metric == "cosine" else -values, 0.0)


def _encode(lists: NeighbourLists, near: NeighbourLists, own: Ints | None, metric: Metric) -> _Encodings:
    """Encode m points by their nearest neighbours `(m, k)`; `own` `(m,)` are positions, None for outside points."""
    count, k = near.positions.shape
    size = len(lists.positions)
    if own is None:
        mutual = near.scores >= lists.scores[near.positions, -1]
    else:
        mutual = (lists.positions[near.positions] == own[:, None, None]).any(axis=2)
    rows, columns = np.nonzero(mutual)
    members = near.positions[rows, columns].astype(np.int64)
    distances = distances_of(near.scores, metric)
    relative = distances / np.maximum(distances[:, -1:], TINY)
    weights = np.exp(-relative[rows, columns])
    if own is not None:
        rows, members = np.concatenate([rows, np.arange(count)]), np.concatenate([members, own])
        weights = np.concatenate([weights, np.ones(count)])
    keys = rows * size + members
    added = np.setdiff1d(_expansion(lists, rows, members, keys, k // 2), keys)
    keys = np.concatenate([keys, added])
    weights = np.concatenate([weights, np.full(len(added), np.exp(-1.0))])
    order = np.argsort(keys)
    rows, members = np.divmod(keys[order], size)
    total = np.bincount(rows, weights[order], minlength=count)
    return _Encodings(rows, members, weights[order] / total[rows])


def _expansion(lists: NeighbourLists, rows: Ints, members: Ints, keys: Ints, half: int) -> Ints:
    """Keys row * n + member that equation 5 adds: the half-sized sets of members that overlap by two thirds."""
    size = len(lists.positions)
    nodes, which = np.unique(members, return_inverse=True)
    near = lists.positions[nodes, :half]
    mutual = (lists.positions[near, :half] == nodes[:, None, None]).any(axis=2)
    theirs = rows[:, None] * size + near[which]
    common = (np.isin(theirs, keys) & mutual[which]).sum(axis=1) + 1  # a member is in its own half-sized set
    enough = 3 * common >= 2 * (mutual.sum(axis=1)[which] + 1)
    added: Ints = theirs[mutual[which] & enough[:, None]]
    return added


def _dense(encodings: _Encodings, count: int, support: Ints) -> NDArray[np.float64]:
    """A table `(count, s + 1)`: weights of the s members in the sorted `support`, then the row's sum, 1 or 0."""
    table = np.zeros((count, len(support) + 1))
    table[encodings.rows, -1] = 1.0
    places = np.searchsorted(support, encodings.members)
    kept = places < len(support)
    kept[kept] = support[places[kept]] == encodings.members[kept]
    table[encodings.rows[kept], places[kept]] = encodings.weights[kept]
    return table


def _unit(vectors: Floats) -> Floats:
    norms = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), TINY)
    unit: Floats = (vectors / norms).astype(np.float32)
    return unit
