"""A view: everything that one search reads, a generation and the live changes since.

A view is loaded once and never modified; only its cache of filtered subsets grows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.calibrate.calibration import Calibration, stored_calibration
from indexer.catalogue.home import Home
from indexer.catalogue.records import ActiveState
from indexer.catalogue.vector_table import VectorTable
from indexer.errors import CorruptError, MismatchError
from indexer.generations.manifest import Manifest, load_ids, load_neighbours, load_typicality
from indexer.generations.store import find_generation, read_verified, table_of
from indexer.search.intact import LoadedFiles
from indexer.typicality.typicality import NEAREST, Typicality, TypicalityModel
from indexer.vectors import Allowed, Floats, Ints, VectorIndex
from indexer.vectors.engines import read_index
from indexer.vectors.exact import exact_scores
from indexer.vectors.rerank import NeighbourLists, distances_of

logger = logging.getLogger("nitamono")


class ItemScore(NamedTuple):
    """An item (by key) with its best image and that image's score."""

    pk: int
    image_id: int
    score: float


class ItemRows(NamedTuple):
    """The positions of each item in an index, for lookups that do not look at all of them.

    Args:
        items: `(m,)`, keys of the items in ascending order.
        starts: `(m + 1,)`, where the rows of each begin in `rows`.
        rows: `(count,)`, positions in the index, item by item.
    """

    items: Ints
    starts: Ints
    rows: Ints

    @classmethod
    def of(cls, pks: Ints) -> ItemRows:
        """Of the item keys `(count,)` by position."""
        rows = np.argsort(pks, kind="stable")
        ordered = pks[rows]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))[: len(pks)]
        return cls(ordered[starts], np.append(starts, len(pks)), rows)

    def known(self, items: Ints) -> Ints:
        """Places in `self.items` of those keys `(n,)` that are in the index."""
        places = np.searchsorted(self.items, items)
        inside = places < len(self.items)
        inside[inside] = self.items[places[inside]] == items[inside]
        found: Ints = places[inside]
        return found

    def positions(self, places: Ints) -> Ints:
        """Positions in the index of the items at these places in `self.items`."""
        counts = self.starts[places + 1] - self.starts[places]
        before = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(places) else counts
        found: Ints = self.rows[np.repeat(self.starts[places] - before, counts) + np.arange(counts.sum())]
        return found


class Subset(NamedTuple):
    """The part of a view that passes a filter.

    Args:
        allowed: the positions of the index that pass; None for all.
        indexed: number of positions that pass.
        live: `(n,)`, which live images pass.
        items: number of items that pass.
    """

    allowed: Allowed | None
    indexed: int
    live: NDArray[np.bool_]
    items: int


@dataclass(frozen=True)
class View:
    """A generation, the live changes on top of it, and the calibration of its encoder.

    Args:
        ids: `(count, 2)`, image_id and item key by position in the index.
        rows: the positions of each item.
        removed: keys of items that changed live: their vectors in the index are out of date.
        live_ids: `(n, 2)`, image_id and item key of the live images.
        live_vectors: `(n, dim)`.
        lists: neighbour lists of the index; None if the generation has none.
        files: the generation's files, all of which are in memory.
        typicality: what tells how typical a query is; None if the generation has none, or a damaged one.
        table: with the vectors of the index; None if they are in files.
        subsets: cache, by the sorted items of a filter.
    """

    state: ActiveState
    manifest: Manifest
    index: VectorIndex
    ids: Ints
    rows: ItemRows
    removed: frozenset[int]
    live_ids: Ints
    live_vectors: Floats
    calibration: Calibration | None
    lists: NeighbourLists | None
    files: LoadedFiles
    typicality: TypicalityModel | None = None
    table: VectorTable | None = None
    subsets: OrderedDict[tuple[tuple[str, str], ...], Subset] = field(default_factory=OrderedDict)

    def damage(self) -> str | None:
        """What is damaged by now of the files that it was loaded from; None if nothing is.

        Raises:
            CorruptError: the table of its vectors, which searches need, is missing.
        """
        if self.table is not None:
            self.table.check()
        return self.files.damage()

    def subset(self, items: NDArray[np.int64] | None) -> Subset:
        """The subset of the items with these keys; None for all items."""
        removed = self.rows.known(self._removed)
        live = np.ones(len(self.live_ids), dtype=bool)
        if items is None:
            if not self.removed:
                return Subset(None, len(self.ids), live, len(self.rows.items))
            mask = np.ones(len(self.ids), dtype=bool)
            mask[self.rows.positions(removed)] = False
            indexed_items = len(self.rows.items) - len(removed)
        else:
            mask = np.zeros(len(self.ids), dtype=bool)
            kept = np.zeros(len(self.rows.items), dtype=bool)
            kept[self.rows.known(items)] = True
            kept[removed] = False
            mask[self.rows.positions(np.flatnonzero(kept))] = True
            indexed_items = int(np.count_nonzero(kept))
            live = np.isin(self.live_ids[:, 1], items)
        allowed = Allowed(mask)
        # The items of live images are among the removed ones, so that none is counted twice.
        return Subset(allowed, allowed.count, live, indexed_items + len(set(self.live_ids[live, 1].tolist())))

    @cached_property
    def _removed(self) -> Ints:
        return np.array(sorted(self.removed), dtype=np.int64)

    def positions_of(self, image_ids: Ints) -> Ints:
        """Positions in the index of indexed images `(n,)`; arbitrary for images that are not indexed."""
        places = np.searchsorted(self.ids[:, 0], image_ids, sorter=self._by_image)
        return self._by_image[np.minimum(places, len(self.ids) - 1)]

    @cached_property
    def _by_image(self) -> Ints:
        return np.argsort(self.ids[:, 0])


def load_view(home: Home, collection: str, state: ActiveState, held: View | None) -> View:
    """Load the view of a state; the index of `held` is reused if it is of the same generation."""
    is_same = held is not None and held.state.generation == state.generation
    opened = held if held is not None and is_same else _open_generation(home, collection, state)
    manifest = opened.manifest
    changed = home.catalogue.changes.live_items(state.collection_id, manifest.watermark)
    stored = home.catalogue.vectors.of_items(manifest.encoder_id, manifest.dim, sorted(changed))
    return replace(
        opened,
        state=state,
        removed=frozenset(changed),
        live_ids=stored.ids,
        live_vectors=stored.vectors,
        calibration=stored_calibration(home, state.collection_id, manifest.encoder_id),
        subsets=OrderedDict(),
    )


def _open_generation(home: Home, collection: str, state: ActiveState) -> View:
    """Verify the files of a generation and read them into memory; the view has no live changes yet."""
    directory = home.generation_directory(collection, state.generation)
    record = find_generation(home, collection, state.generation)
    files = LoadedFiles(directory, lambda: read_verified(home, record))
    try:
        manifest = read_verified(home, record)
        table = table_of(home, record, manifest)
        index = read_index(directory, manifest.factory, manifest.search_parameters, table)
        ids, lists = load_ids(directory), load_neighbours(directory, manifest)
        if (index.count, index.dim, len(ids)) != (manifest.count, manifest.dim, manifest.count):
            raise CorruptError(
                f"its index holds {index.count} vectors of {index.dim} numbers and {len(ids)} ids; the manifest says "
                f"{manifest.count} of {manifest.dim}"
            )
        if (damage := files.damage()) is not None:  # since they were verified
            raise CorruptError(damage)
    except CorruptError as exc:
        raise CorruptError(
            f"generation {state.generation} of {collection!r} is damaged ({exc}); run `nitamono repair`"
        ) from exc
    if manifest.encoder_id != state.encoder_id:
        raise MismatchError(
            f"generation {state.generation} of {collection!r} was built with encoder {manifest.encoder_id[:12]}, "
            f"the catalogue records {state.encoder_id[:12]}; run `nitamono generations verify`"
        )
    live_ids, live_vectors = np.empty((0, 2), np.int64), np.empty((0, manifest.dim), np.float32)
    typicality = _typicality(directory, manifest)
    rows = ItemRows.of(ids[:, 1])
    return View(
        state, manifest, index, ids, rows, frozenset(), live_ids, live_vectors, None, lists, files, typicality, table
    )  # fmt: skip


def _typicality(directory: Path, manifest: Manifest) -> TypicalityModel | None:
    try:
        return load_typicality(directory, manifest)
    except CorruptError as exc:
        logger.warning(
            "searches in %s do not tell how typical a query is: %s; run `nitamono repair`", manifest.collection, exc
        )
        return None


def typicality_of(view: View, query: Floats, nearest: Sequence[ItemScore]) -> Typicality | None:
    """How typical a query is of a view's collection; None if the collection has no items, or nothing to tell it by.

    Args:
        query: `(1, dim)`.
        nearest: the `NEAREST` most similar items of the whole collection.
    """
    if view.typicality is None or not nearest:
        return None
    scores = np.array([hit.score for hit in nearest[:NEAREST]], np.float32)
    return view.typicality.of(query[0], float(distances_of(scores, view.manifest.metric).mean()))


def best_items(view: View, queries: Floats, need: int, subset: Subset, excluded: int | None) -> list[ItemScore]:
    """The `need` best items of a subset, best first.

    Args:
        queries: `(nq, dim)`; an item's score is the best over its images and all queries.
        excluded: key of an item to leave out.
    """
    best = _score_live(view, queries, subset.live)
    k = min(2 * need, subset.indexed)
    while True:
        unseen = _add_indexed(view, queries, k, subset, best)
        ranked = sorted((hit for hit in best.values() if hit.pk != excluded), key=lambda hit: (-hit.score, hit.pk))
        # Stop once `need` items score above every image not fetched. Ties do not count, so that pages never overlap.
        if unseen is None or (len(ranked) >= need and ranked[need - 1].score > unseen):
            return ranked[:need]
        k = min(4 * k, subset.indexed)


def _score_live(view: View, queries: Floats, live: NDArray[np.bool_]) -> dict[int, ItemScore]:
    best: dict[int, ItemScore] = {}
    if live.any():
        scores = exact_scores(queries, view.live_vectors[live], view.manifest.metric).max(axis=0)
        for (image_id, pk), score in zip(view.live_ids[live].tolist(), scores.tolist(), strict=True):
            _keep_best(best, ItemScore(pk, image_id, score))
    return best


def _add_indexed(view: View, queries: Floats, k: int, subset: Subset, best: dict[int, ItemScore]) -> float | None:
    """Merge the index's `k` best images of each query into `best`.

    Returns the best score that any other image can have; None if there is no other.
    """
    if k == 0:
        return None
    found = view.index.search(queries, k, subset.allowed)
    for positions, scores in zip(found.positions, found.scores, strict=True):
        real = positions >= 0
        for (image_id, pk), score in zip(view.ids[positions[real]].tolist(), scores[real].tolist(), strict=True):
            _keep_best(best, ItemScore(pk, image_id, score))
    if k >= subset.indexed:
        return None
    return float(found.scores[:, -1].max())


def _keep_best(best: dict[int, ItemScore], hit: ItemScore) -> None:
    known = best.get(hit.pk)
    if known is None or (-hit.score, hit.image_id) < (-known.score, known.image_id):
        best[hit.pk] = hit
