"""The second stage of a search in an evaluation; it reranks gallery images, where a search reranks items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.vectors import Floats
from indexer.vectors.engines import exact_index
from indexer.vectors.exact import exact_scores
from indexer.vectors.rerank import DEPTH, EXPANSION, K1, NeighbourLists, distances_of, expand_query, k_reciprocal
from training.reference import Metric

if TYPE_CHECKING:
    from indexer.evaluate.images import GalleryVectors


def reranked(
    gallery: GalleryVectors, queries: Floats, same: Mapping[int, Sequence[int]], metric: Metric, rerank: Rerank
) -> Iterator[tuple[slice, Floats]]:
    """Reranked scores in blocks of queries, like those of `GalleryVectors.scored`; larger is better.

    Args:
        same: gallery positions of files identical to a query, which are excluded.

    Raises:
        InvalidRequestError: the gallery is too large to keep its vectors in memory, which a second stage needs.
    """
    if rerank == "none" or not len(queries):
        yield from gallery.scored(queries)
        return
    if gallery.kept is None:
        raise InvalidRequestError("rerank", f"{rerank!r} needs the gallery's vectors in memory; use a smaller gallery")
    if rerank == "expand":
        nearest = (_best(row, EXPANSION) for _, row in _rows(gallery, queries, same))
        pairs = zip(queries, nearest, strict=True)
        yield from gallery.scored(
            np.concatenate([expand_query(query[None], gallery.kept[near], metric) for query, near in pairs])
        )
        return
    lists = _lists(gallery.kept, metric)
    for place, row in _rows(gallery, queries, same):
        yield slice(place, place + 1), _reordered(lists, queries[place], row, gallery.kept, metric)[None]


def _rows(gallery: GalleryVectors, queries: Floats, same: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, Floats]]:
    """The scores `(n,)` of each query, with -inf for identical files."""
    for block, scores in gallery.scored(queries):
        for place, row in enumerate(scores, start=block.start):
            row[list(same.get(place, []))] = -np.inf
            yield place, row


def _lists(vectors: Floats, metric: Metric) -> NeighbourLists:
    from indexer.vectors.neighbours import nearest_others

    return nearest_others(exact_index(vectors, metric), vectors, K1)


def _best(row: Floats, k: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Positions of up to `k` best finite scores, best first."""
    k = min(k, len(row))
    top = np.argpartition(-row, k - 1)[:k]
    top = top[np.argsort(-row[top], kind="stable")]
    return top[np.isfinite(row[top])]


def _reordered(lists: NeighbourLists, query: Floats, row: Floats, vectors: Floats, metric: Metric) -> Floats:
    """Scores `(n,)` that rank the first `DEPTH` by their final distances, the others below them as before."""
    k = lists.positions.shape[1]
    candidates = _best(row, DEPTH)
    if len(candidates) < max(2, k) or not k:
        return row
    exact = exact_scores(query[None], vectors[candidates], metric)[0]
    near = NeighbourLists(candidates[None, :k].astype(np.int32), exact[None, :k])
    distances, guests = distances_of(exact, metric), NeighbourLists.empty(k)
    final = k_reciprocal(lists, near, candidates.astype(np.int64), guests, distances, metric)
    scores = row.copy()
    order = candidates[np.argsort(final, kind="stable")]
    # The reranked images come first: descending integers above the best score.
    scores[order] = max(float(row[candidates[0]]), 0.0) + np.arange(len(order), 0, -1, dtype=np.float32)
    return scores
