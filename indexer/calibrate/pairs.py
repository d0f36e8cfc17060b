"""Pairs of a query and a hit, labelled by the catalogue itself as the same product or not.

A query is a photo of one item. Its pairs are the k best items, each represented by its best image, ranked and scored as
in `indexer.search`. If enough items have several photos, the query is one of these, and it and its copies are left out
of the gallery (truth `photos`). Otherwise the query is another view of a photo, which stays in the gallery (`views`).

A search always has a first hit, even if the product is not in the catalogue. So queries are repeated with their product
removed from the gallery, as many as give the assumed share `present` of queries whose product is there. The pairs then
have the distribution of real searches, and probabilities need no prior correction.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from indexer.calibrate.calibration import MIN_CALIBRATION_ITEMS
from indexer.calibrate.probability import Groups, Labels, Numbers, best_others
from indexer.catalogue.home import Home
from indexer.catalogue.queries import distinct_vectors
from indexer.catalogue.records import StoredVectors
from indexer.catalogue.vectors import Snapshot
from indexer.errors import CalibrationError
from indexer.measures.ground_truth import Pixels, Truth, other_view, products
from indexer.vectors import Floats, Ints
from indexer.vectors.exact import exact_scores
from training.data.decode import ImageLimits, decode_image
from training.embedder import Embedder, load_embedder
from training.errors import ImageError
from training.preprocessing import Preprocessing
from training.reference import EncoderDescription, Metric

HITS = 10  # default k of a search
LOOKED_AT = 600  # photos that are checked for near-duplicates among the hits, nearest pairs first
BATCH = 128  # views per embedding batch
BLOCK_NUMBERS = 4_000_000  # scores in memory at a time, 16 MB
PICTURE = Preprocessing(size=64)
T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Pairs of queries and hits; arrays are `(n,)`.

    Args:
        others: best score of any other item in the same search.
        labels: whether the pair is of the same product.
        groups: product of the query.
        first: whether the hit is the best of its query.
        queries: number of query items.
        images: number of images in the gallery.
        present_search: whether the query's product is in the gallery, among the hits or not.
        present: share of queries whose product is in the gallery.
    """

    scores: Numbers
    others: Numbers
    labels: Labels
    groups: Groups
    first: Labels
    truth: Truth
    queries: int
    images: int
    present_search: Labels
    present: float


@dataclass(frozen=True)
class _Gallery:
    """The searchable images sorted by item; arrays are `(n,)`. Their vectors stay in the catalogue.

    Args:
        items: numbered from 0.
        contents: the first 60 bits of their sha256.
        pks: `(items,)`, key of each item.
        vectors_of: the vectors of the items with some keys.
        snapshot: all vectors, a part at a time.
    """

    image_ids: Ints
    items: Ints
    contents: Ints
    pks: Ints
    vectors_of: Callable[[Sequence[int]], StoredVectors]
    snapshot: Callable[[], AbstractContextManager[Snapshot]]


@dataclass(frozen=True)
class _Queries:
    positions: Ints  # (q,) gallery positions of the query photos
    vectors: Floats  # (q, dim)


@dataclass(frozen=True)
class _Hits:
    """The best items of each query, `(q, k)`, best first.

    `positions` are those of their best images in the gallery (-1: none), with their `scores`.
    """

    positions: Ints
    scores: Floats


def collect_pairs(
    home: Home,
    collection_id: int,
    encoder: EncoderDescription,
    *,
    queries: int,
    present: float,
    seed: int,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> Pairs:
    """Collect the pairs of at most `queries` random items, with one photo of each as the query.

    Memory is bounded: three numbers for each image of the collection, and a part of its vectors.

    Args:
        present: share of queries whose product is in the gallery, in (0, 1].

    Raises:
        CalibrationError: too few items have a photo that can be a query.
    """
    files = _Files(home, limits or ImageLimits())
    gallery = _read_gallery(home, collection_id, encoder)
    truth, positions = _choose(gallery, queries, np.random.default_rng(seed))
    if truth == "photos":
        chosen = _photos(gallery, positions)
    else:
        chosen = _views(gallery, positions, files, load_embedder(encoder, device=device), seed)
    hits = _search(gallery, chosen, encoder.metric, without_copies=truth == "photos")
    product = _products(gallery, chosen, hits, files)
    own = product[gallery.items[chosen.positions]]
    labels = product[gallery.items[hits.positions]] == own[:, None]
    return _pairs(own, hits.scores.astype(np.float64), labels, truth, len(gallery.image_ids), present)


def _pairs(own: Ints, scores: Numbers, labels: Labels, truth: Truth, images: int, present: float) -> Pairs:
    """Pairs of queries `(q,)` and their hits `(q, k)`, with and without the query's product in the gallery."""
    queries = len(own)
    kept = _spread(queries, present / max(present, 1 - present))
    gone = _spread(queries, (1 - present) / max(present, 1 - present))
    without = -np.sort(np.where(labels[gone], np.inf, -scores[gone]), axis=1)
    own, scores = np.concatenate([own[kept], own[gone]]), np.concatenate([scores[kept], without])
    labels = np.concatenate([labels[kept], np.zeros_like(labels[gone])])
    found = np.isfinite(scores) & np.isfinite(scores[:, 1:2])  # a single hit has no margin
    groups = np.broadcast_to(own[:, None], found.shape)[found]
    first = np.broadcast_to(np.arange(found.shape[1]) == 0, found.shape)[found]
    kind = np.broadcast_to((np.arange(len(own)) < kept.sum())[:, None], found.shape)[found]
    return Pairs(
        scores[found], best_others(scores)[found], labels[found], groups, first, truth, queries, images, kind, present
    )


def _spread(count: int, share: float) -> Labels:
    """A mask `(count,)` that selects an evenly spaced share."""
    steps = np.floor(np.arange(-1, count) * share + 1e-9)
    chosen: Labels = np.diff(steps) > 0
    return chosen


class FirstHits(NamedTuple):
    """Scores of the best and the second best item of each query, `(n,)`."""

    scores: Numbers
    others: Numbers


def recent_first_hits(home: Home, collection_id: int, encoder: EncoderDescription) -> FirstHits:
    """The first hits of the logged queries in the present gallery; repeated vectors count once."""
    vectors = distinct_vectors(home.catalogue.queries.all(collection_id, encoder.encoder_id))
    gallery = _read_gallery(home, collection_id, encoder)
    if not vectors or len(gallery.pks) < 2:
        return FirstHits(np.empty(0), np.empty(0))
    chosen = _Queries(np.zeros(len(vectors), np.int64), np.stack(vectors))
    best = _search(gallery, chosen, encoder.metric, without_copies=False).scores.astype(np.float64)
    return FirstHits(best[:, 0], best[:, 1])


class _Files:
    """The catalogue's image files, if they are still as indexed."""

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        self._home = home
        self._limits = limits

    def read(self, image_ids: Sequence[int], at_least: int, use: Callable[[int, Pixels], T]) -> list[T | None]:
        """Apply `use(image_id, pixels)` to each image, in order; None for a missing, changed or broken file."""
        files = self._home.catalogue.images.files(image_ids)

        def read_one(image_id: int) -> T | None:
            uri, sha256 = files.get(image_id, ("", None))
            try:
                data = self._home.uri_path(uri).read_bytes()
                if hashlib.sha256(data).hexdigest() != sha256:
                    return None
                return use(image_id, decode_image(data, at_least=at_least, limits=self._limits).pixels)
            except (OSError, ImageError):
                return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(read_one, image_ids))


def _read_gallery(home: Home, collection_id: int, encoder: EncoderDescription) -> _Gallery:
    vectors = home.catalogue.vectors
    image_ids, pks, contents = vectors.keys(collection_id, encoder.encoder_id).T
    order = np.argsort(pks, kind="stable")
    known, items = np.unique(pks[order], return_inverse=True)
    return _Gallery(
        image_ids[order],
        items.astype(np.int64),
        contents[order],
        known,
        partial(vectors.of_items, encoder.encoder_id, encoder.dim),
        partial(vectors.snapshot, collection_id, encoder.encoder_id, encoder.dim),
    )


def _choose(gallery: _Gallery, queries: int, rng: np.random.Generator) -> tuple[Truth, Ints]:
    """The kind of ground truth, and gallery positions of one random photo each of at most `queries` random items."""
    several = np.flatnonzero(_contents_of_items(gallery) > 1)
    truth: Truth = "photos" if len(several) >= MIN_CALIBRATION_ITEMS else "views"
    items = several if truth == "photos" else np.unique(gallery.items)
    if len(items) < MIN_CALIBRATION_ITEMS:
        raise CalibrationError(f"{len(items)} items have a searchable photo; {MIN_CALIBRATION_ITEMS} are needed")
    chosen = rng.permutation(items)[:queries]
    first = np.searchsorted(gallery.items, chosen)
    return truth, first + rng.integers(np.searchsorted(gallery.items, chosen, side="right") - first)


def _contents_of_items(gallery: _Gallery) -> Ints:
    """Number of different photos of each item `(items,)`."""
    order = np.lexsort((gallery.contents, gallery.items))
    items, contents = gallery.items[order], gallery.contents[order]
    fresh = np.ones(len(items), dtype=bool)
    fresh[1:] = (np.diff(items) != 0) | (np.diff(contents) != 0)
    return np.bincount(items[fresh])


def _photos(gallery: _Gallery, positions: Ints) -> _Queries:
    """The photos themselves; those that were deleted meanwhile are skipped."""
    stored = gallery.vectors_of(gallery.pks[gallery.items[positions]].tolist())
    places = {image_id: place for place, image_id in enumerate(stored.ids[:, 0].tolist())}
    kept = [position for position in positions.tolist() if int(gallery.image_ids[position]) in places]
    chosen = np.array(kept, dtype=np.int64)
    return _Queries(chosen, stored.vectors[[places[image_id] for image_id in gallery.image_ids[chosen].tolist()]])


def _views(gallery: _Gallery, positions: Ints, files: _Files, embedder: Embedder, seed: int) -> _Queries:
    """Embed other views of photos; photos whose files cannot be read are skipped."""
    preprocessing = embedder.described.preprocessing
    if not isinstance(preprocessing, Preprocessing):
        raise CalibrationError("views of photos are compared for a calibration, and this collection has drawings")

    def view(image_id: int, pixels: Pixels) -> Pixels:
        moved, _ = other_view(np.random.default_rng([seed, image_id]), pixels)
        return preprocessing.apply(moved)

    views = files.read(gallery.image_ids[positions].tolist(), preprocessing.least_side, view)
    seen = [found for found in views if found is not None]
    if len(seen) < MIN_CALIBRATION_ITEMS:
        raise CalibrationError(
            f"{len(seen)} of {len(positions)} photos can still be read; {MIN_CALIBRATION_ITEMS} are needed"
        )
    vectors = [embedder.embed(np.stack(seen[start : start + BATCH])) for start in range(0, len(seen), BATCH)]
    kept = np.array([found is not None for found in views])
    return _Queries(positions[kept], np.concatenate(vectors))


def _search(gallery: _Gallery, chosen: _Queries, metric: Metric, *, without_copies: bool) -> _Hits:
    """The best items of each query; `without_copies` leaves out all images with the content of the query photo."""
    count = len(chosen.positions)
    k = min(HITS, len(gallery.pks))
    hits = _Hits(np.full((count, k), -1, dtype=np.int64), np.full((count, k), -np.inf, dtype=np.float32))
    by_id = np.argsort(gallery.image_ids)
    with gallery.snapshot() as snapshot:
        for part in snapshot.parts:
            places = np.searchsorted(gallery.image_ids, part.ids[:, 0], sorter=by_id)
            positions = by_id[np.minimum(places, len(by_id) - 1)]
            order = np.argsort(positions, kind="stable")
            is_known = gallery.image_ids[positions[order]] == part.ids[order, 0]  # others are newer than the gallery
            order = order[is_known]
            positions, vectors = positions[order], part.vectors[order]
            rows = max(1, BLOCK_NUMBERS // max(1, len(positions)))
            for first in range(0, count if len(positions) else 0, rows):
                block = slice(first, first + rows)
                scores = exact_scores(chosen.vectors[block], vectors, metric)
                if without_copies:
                    of_query = gallery.contents[chosen.positions[block]]
                    scores[of_query[:, None] == gallery.contents[positions][None]] = -np.inf
                _keep_best(gallery.items, _Hits(hits.positions[block], hits.scores[block]), positions, scores)
    return hits


def _keep_best(items: Ints, hits: _Hits, positions: Ints, scores: Floats) -> None:
    """Put the best items of a part of the gallery among the hits `(q, k)` so far, in place.

    Args:
        items: of each position in the gallery.
        positions: `(m,)`, of the part, ascending.
        scores: `(q, m)`.
    """
    starts = np.flatnonzero(np.diff(items[positions], prepend=-1))
    ends = np.append(starts[1:], len(positions))
    of_items = np.maximum.reduceat(scores, starts, axis=1)
    k = hits.scores.shape[1]
    top = np.argpartition(-of_items, min(k, len(starts)) - 1, axis=1)[:, :k]
    best = np.take_along_axis(of_items, top, axis=1)
    found = np.full(best.shape, -1, dtype=np.int64)
    for row, column in np.argwhere(best > hits.scores[:, -1:]):
        start = starts[top[row, column]]
        found[row, column] = positions[start + scores[row, start : ends[top[row, column]]].argmax()]
    best[found < 0] = -np.inf
    found, best = np.concatenate([hits.positions, found], axis=1), np.concatenate([hits.scores, best], axis=1)
    order = np.lexsort((-best, items[found]), axis=1)  # an item may have images in several parts
    found, best = np.take_along_axis(found, order, axis=1), np.take_along_axis(best, order, axis=1)
    again = (items[found[:, 1:]] == items[found[:, :-1]]) & (found[:, 1:] >= 0) & (found[:, :-1] >= 0)
    best[:, 1:][again] = -np.inf
    order = np.argsort(-best, axis=1, kind="stable")[:, :k]
    hits.scores[:] = np.take_along_axis(best, order, axis=1)
    hits.positions[:] = np.where(np.isfinite(hits.scores), np.take_along_axis(found, order, axis=1), -1)


def _products(gallery: _Gallery, chosen: _Queries, hits: _Hits, files: _Files) -> Ints:
    """The product of each item `(items,)`: the item itself, or the first of the items that near-duplicates link."""
    product = np.arange(len(gallery.pks))
    positions = np.array(_nearest_others(gallery, chosen, hits), dtype=np.int64)
    found = files.read(gallery.image_ids[positions].tolist(), PICTURE.size, lambda _, pixels: PICTURE.apply(pixels))
    pictures = [picture.transpose(1, 2, 0) for picture in found if picture is not None]
    if pictures:
        items = gallery.items[positions[[picture is not None for picture in found]]]
        tied = products([str(item) for item in items], np.ascontiguousarray(np.stack(pictures)))
        first = np.full(int(tied.max()) + 1, len(product))
        np.minimum.at(first, tied, items)
        product[items] = first[tied]
    return product


def _nearest_others(gallery: _Gallery, chosen: _Queries, hits: _Hits) -> list[int]:
    """Gallery positions of the photos in the nearest pairs of different items, about `LOOKED_AT` in all."""
    others = (hits.positions >= 0) & (gallery.items[hits.positions] != gallery.items[chosen.positions][:, None])
    rows, columns = np.nonzero(others)
    looked: dict[int, None] = {}
    for pair in np.argsort(-hits.scores[rows, columns], kind="stable"):
        looked[int(chosen.positions[rows[pair]])] = None
        looked[int(hits.positions[rows[pair], columns[pair]])] = None
        if len(looked) >= LOOKED_AT:
            break
    return list(looked)
