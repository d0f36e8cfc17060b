"""The optional second stage of a search, which re-ranks hits by the neighbourhoods of the gallery.

`expand` searches again with the query averaged with its nearest items; `reciprocal` re-orders the first hits by
k-reciprocal neighbours (`indexer.vectors.rerank`). A hit keeps its score of the first stage, the similarity to the
query, because calibrations are fitted to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.search.view import ItemScore, Subset, View, best_items
from indexer.vectors import Floats, Ints
from indexer.vectors.exact import exact_scores
from indexer.vectors.rerank import DEPTH, EXPANSION, NeighbourLists, distances_of, expand_query, k_reciprocal


def second_stage(
    view: View, queries: Floats, need: int, subset: Subset, excluded: int | None, rerank: Rerank, everything: Subset
) -> list[ItemScore]:
    """At least the `need` best items of a subset in their final order, the best of the first stage among them.

    Args:
        everything: the unfiltered subset, from which the query's neighbours for expansion are taken.

    Raises:
        InvalidRequestError: `reciprocal` on a generation without neighbour lists.
    """
    if rerank == "none":
        return best_items(view, queries, need, subset, excluded)
    if rerank == "expand":
        return _expanded(view, queries, need, subset, excluded, everything)
    if view.lists is None:
        raise InvalidRequestError(
            "rerank",
            f"generation {view.manifest.number} of {view.manifest.collection!r} has no neighbour lists; "
            "search with 'none' or 'expand'",
        )
    first = best_items(view, queries, max(need, DEPTH), subset, excluded)
    return _reordered(view, view.lists, queries, first[:DEPTH]) + first[DEPTH:]


def _expanded(
    view: View, queries: Floats, need: int, subset: Subset, excluded: int | None, everything: Subset
) -> list[ItemScore]:
    near = best_items(view, queries, EXPANSION, everything, excluded)
    if not near:
        return []
    metric = view.manifest.metric
    vectors = _vectors(view, near)
    # Keep the best two by similarity: their scores give the margin that probabilities depend on.
    first = near if subset is everything else best_items(view, queries, 2, subset, excluded)
    expanded = expand_query(queries, vectors, metric)
    found = best_items(view, expanded, need, subset, excluded)
    scores = exact_scores(queries, _vectors(view, found), metric).max(axis=0) if found else np.empty(0)
    known = {hit.pk: hit for hit in first}
    hits = [known.get(hit.pk, hit._replace(score=float(score))) for hit, score in zip(found, scores, strict=True)]
    seen = {hit.pk for hit in hits}
    return hits + [hit for hit in first if hit.pk not in seen]


def _reordered(view: View, lists: NeighbourLists, queries: Floats, hits: list[ItemScore]) -> list[ItemScore]:
    """Sort hits by their least final distance to any query; ties keep their order."""
    if len(hits) < 2 or not lists.positions.shape[1]:
        return hits
    k, metric = lists.positions.shape[1], view.manifest.metric
    vectors = _vectors(view, hits)
    is_live = np.array([hit.pk in view.removed for hit in hits])
    candidates = view.positions_of(_image_ids(hits))
    candidates[is_live] = -1 - np.arange(is_live.sum())
    query_lists = _nearest(view, queries, k)
    guests = _nearest(view, vectors[is_live], k)
    final = np.full(len(hits), np.inf)
    for row, query in enumerate(queries):
        one = NeighbourLists(query_lists.positions[row : row + 1], query_lists.scores[row : row + 1])
        distances = distances_of(exact_scores(query[None], vectors, metric)[0], metric)
        final = np.minimum(final, k_reciprocal(lists, one, candidates, guests, distances, metric))
    return [hits[place] for place in np.argsort(final, kind="stable")]


def _nearest(view: View, vectors: Floats, k: int) -> NeighbourLists:
    """The `k` nearest in the whole index, deleted items included: only neighbourhoods are compared."""
    found = view.index.search(vectors, k)
    return NeighbourLists(found.positions.astype(np.int32), found.scores)


def _image_ids(hits: Sequence[ItemScore]) -> Ints:
    return np.array([hit.image_id for hit in hits], dtype=np.int64)


def _vectors(view: View, hits: Sequence[ItemScore]) -> Floats:
    """The vectors `(n, dim)` of the hits' images, indexed and live."""
    live = {int(image_id): row for row, (image_id, _) in enumerate(view.live_ids)}
    is_live = np.array([hit.pk in view.removed for hit in hits], dtype=bool)
    vectors = np.empty((len(hits), view.manifest.dim), np.float32)
    vectors[is_live] = view.live_vectors[[live[hit.image_id] for hit in hits if hit.pk in view.removed]]
    if not is_live.all():
        vectors[~is_live] = view.index.vectors_at(view.positions_of(_image_ids(hits)[~is_live]))
    return vectors
