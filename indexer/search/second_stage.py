"""The second stage of a search: its hits in a better order, by what the catalogue says of itself.

`expand` searches once more with the query averaged with its nearest items; `reciprocal` re-orders the first hits by
k-reciprocal neighbours (`indexer.vectors.rerank`). Either way a hit keeps the score of the first stage, its similarity
to the query, since that is what calibrations are learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from indexer.catalogue.records import Rerank
from indexer.errors import InvalidRequestError
from indexer.search.view import Ranked, Subset, View, rank
from indexer.vectors import Floats
from indexer.vectors.exact import exact_scores
from indexer.vectors.rerank import DEPTH, EXPANSION, NeighbourLists, distances_of, expand_query, k_reciprocal


def second_stage(
    view: View, queries: Floats, need: int, subset: Subset, without: int | None, rerank: Rerank, everything: Subset
) -> list[Ranked]:
    """At least the `need` best items of a subset in their final order, with the best of the first stage among them.

    Args:
        everything: the subset without a filter: a filter changes neither the expanded query nor neighbours.

    Raises:
        InvalidRequestError: `reciprocal` on a generation without neighbour lists.
    """
    if rerank == "none":
        return rank(view, queries, need, subset, without)
    if rerank == "expand":
        return _expanded(view, queries, need, subset, without, everything)
    if view.lists is None:
        raise InvalidRequestError(
            "rerank",
            f"generation {view.manifest.number} of {view.manifest.collection!r} holds no neighbour lists; "
            "search with 'none' or 'expand'",
        )
    first = rank(view, queries, max(need, DEPTH), subset, without)
    return _reordered(view, view.lists, queries, first[:DEPTH]) + first[DEPTH:]


def _expanded(
    view: View, queries: Floats, need: int, subset: Subset, without: int | None, everything: Subset
) -> list[Ranked]:
    near = rank(view, queries, EXPANSION, everything, without)
    if not near:
        return []
    metric = view.manifest.metric
    vectors = _vectors(view, near)
    # The best two by similarity: their scores decide how clear a match stands of the others.
    first = near if subset is everything else rank(view, queries, 2, subset, without)
    expanded = expand_query(queries, vectors, metric)
    found = rank(view, expanded, need, subset, without)
    scores = exact_scores(queries, _vectors(view, found), metric).max(axis=0) if found else np.empty(0)
    known = {hit.pk: hit for hit in first}
    hits = [known.get(hit.pk, hit._replace(score=float(score))) for hit, score in zip(found, scores, strict=True)]
    seen = {hit.pk for hit in hits}
    return hits + [hit for hit in first if hit.pk not in seen]


def _reordered(view: View, lists: NeighbourLists, queries: Floats, hits: list[Ranked]) -> list[Ranked]:
    """Hits by their least final distance to any of the queries; equals stay as they are."""
    if len(hits) < 2 or not lists.positions.shape[1]:
        return hits
    k, metric = lists.positions.shape[1], view.manifest.metric
    vectors = _vectors(view, hits)
    is_live = np.array([hit.pk in view.removed for hit in hits])
    candidates = _positions(view, hits)
    candidates[is_live] = -1 - np.arange(is_live.sum())
    asked = _nearest(view, queries, k)
    guests = _nearest(view, vectors[is_live], k)
    final = np.full(len(hits), np.inf)
    for row, query in enumerate(queries):
        one = NeighbourLists(asked.positions[row : row + 1], asked.scores[row : row + 1])
        distances = distances_of(exact_scores(query[None], vectors, metric)[0], metric)
        final = np.minimum(final, k_reciprocal(lists, one, candidates, guests, distances, metric))
    return [hits[place] for place in np.argsort(final, kind="stable")]


def _nearest(view: View, vectors: Floats, k: int) -> NeighbourLists:
    """The nearest of the whole index, deleted items included: what is compared is the company that points keep."""
    found = view.index.search(vectors, k)
    return NeighbourLists(found.positions.astype(np.int32), found.scores)


def _positions(view: View, hits: Sequence[Ranked]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Where the hits' images stand in the index, which is in order of image_id; meaningless for live ones."""
    wanted = np.array([hit.image_id for hit in hits], dtype=np.int64)
    return np.minimum(np.searchsorted(view.ids[:, 0], wanted), len(view.ids) - 1)


def _vectors(view: View, hits: Sequence[Ranked]) -> Floats:
    """The vectors `(n, dim)` of the hits' images, live ones from what was written since."""
    live = {int(image_id): row for row, (image_id, _) in enumerate(view.live_ids)}
    is_live = np.array([hit.pk in view.removed for hit in hits], dtype=bool)
    vectors = np.empty((len(hits), view.manifest.dim), np.float32)
    vectors[is_live] = view.live_vectors[[live[hit.image_id] for hit in hits if hit.pk in view.removed]]
    if not is_live.all():
        vectors[~is_live] = view.index.vectors_at(_positions(view, hits)[~is_live])
    return vectors
