"""Pairs of photos, labelled by the catalogue itself: what searches would show, and whether it is the same product.

Each query is a photo of one item, and its pairs are the k best items, each by its best image, as `indexer.search` ranks
and scores them. Where enough items have several photos the query is one of them, and neither it nor a copy of it is in
the gallery (truth `photos`). Otherwise it is another view of a photo, whose own stays in the gallery (`views`).

Shoppers also ask for what is not there, and then too some hit comes first: queries are asked once more with their
product taken away, as many as make the share of searches whose product is there what it is said to be (`present`). So
the pairs, and what is learnt of them, are of searches as they come: no odds need be moved afterwards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from indexer.calibrate.calibration import MIN_CALIBRATION_ITEMS
from indexer.calibrate.probability import Groups, Labels, Numbers, best_others
from indexer.catalogue.home import Home
from indexer.catalogue.queries import distinct_vectors
from indexer.errors import CalibrationError
from indexer.measures.ground_truth import Pixels, Truth, other_view, products
from indexer.vectors import Floats, Ints
from indexer.vectors.exact import exact_scores
from training.data.decode import ImageLimits, decode_image
from training.embedder import Embedder, load_embedder
from training.errors import ImageError
from training.preprocessing import Preprocessing
from training.reference import EncoderDescription, Metric

HITS = 10  # that a search shows unless asked for more
LOOKED_AT = 600  # photos read to find near-duplicates among the hits, nearest pairs first
BATCH = 128  # views embedded at a time
BLOCK_NUMBERS = 4_000_000  # scores held at a time: 16 MB
PICTURE = Preprocessing(size=64)
T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """What was found, `(n,)` each, and of how much."""

    scores: Numbers
    others: Numbers  # the best score of any other item in the same search
    labels: Labels  # the same product
    groups: Groups  # the product of the query
    first: Labels  # the query's best hit
    truth: Truth
    queries: int
    images: int  # of the gallery
    present_search: Labels  # the query's product is in the gallery, whether or not among the hits
    present: float  # share of the searches of which that is so


@dataclass(frozen=True)
class _Gallery:
    """The searchable images by one encoder, `(n,)` each, in order of their items; `vectors` `(n, dim)`."""

    image_ids: Ints
    items: Ints  # counted from 0
    contents: Ints  # the first 60 bits of their sha256
    vectors: Floats


@dataclass(frozen=True)
class _Queries:
    places: Ints  # (q,) in the gallery, of the photos that are asked for
    vectors: Floats  # (q, dim)


@dataclass(frozen=True)
class _Hits:
    """Per query the best items `(q, k)`, best first: gallery place of their best image (-1 where none), and score."""

    places: Ints
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
    """The pairs of at most `queries` items, chosen by the seed, one photo of each.

    Args:
        present: share of the searches whose product is there, above 0 and at most 1.

    Raises:
        CalibrationError: too few items have a photo that can be asked for.
    """
    files = _Files(home, limits or ImageLimits())
    gallery = _read_gallery(home, collection_id, encoder)
    truth, places = _choose(gallery, queries, np.random.default_rng(seed))
    if truth == "photos":
        asked = _Queries(places, gallery.vectors[places])
    else:
        asked = _views(gallery, places, files, load_embedder(encoder.directory, device=device), seed)
    hits = _search(gallery, asked, encoder.metric, without_copies=truth == "photos")
    product = _products(gallery, asked, hits, files)
    own = product[gallery.items[asked.places]]
    labels = product[gallery.items[hits.places]] == own[:, None]
    return _pairs(own, hits.scores.astype(np.float64), labels, truth, len(gallery.image_ids), present)


def _pairs(own: Ints, scores: Numbers, labels: Labels, truth: Truth, images: int, present: float) -> Pairs:
    """Pairs of queries `(q,)` and their hits `(q, k)`, and of queries whose product is taken away."""
    queries = len(own)
    there = _spread(queries, present / max(present, 1 - present))
    gone = _spread(queries, (1 - present) / max(present, 1 - present))
    without = -np.sort(np.where(labels[gone], np.inf, -scores[gone]), axis=1)
    own, scores = np.concatenate([own[there], own[gone]]), np.concatenate([scores[there], without])
    labels = np.concatenate([labels[there], np.zeros_like(labels[gone])])
    found = np.isfinite(scores) & np.isfinite(scores[:, 1:2])  # one item alone stands clear of nothing
    groups = np.broadcast_to(own[:, None], found.shape)[found]
    first = np.broadcast_to(np.arange(found.shape[1]) == 0, found.shape)[found]
    kind = np.broadcast_to((np.arange(len(own)) < there.sum())[:, None], found.shape)[found]
    return Pairs(
        scores[found], best_others(scores)[found], labels[found], groups, first, truth, queries, images, kind, present
    )


def _spread(count: int, share: float) -> Labels:
    """A share of so many, evenly spread from the first on `(count,)`."""
    steps = np.floor(np.arange(-1, count) * share + 1e-9)
    chosen: Labels = np.diff(steps) > 0
    return chosen


class FirstHits(NamedTuple):
    """Score of the best item of each search, and of the next best `(n,)`."""

    scores: Numbers
    others: Numbers


def recent_first_hits(home: Home, collection_id: int, encoder: EncoderDescription) -> FirstHits:
    """What the queries that servers logged would find now, each different vector once."""
    vectors = distinct_vectors(home.catalogue.queries.all(collection_id, encoder.encoder_id))
    gallery = _read_gallery(home, collection_id, encoder)
    if not vectors or not len(gallery.items) or gallery.items[-1] == 0:
        return FirstHits(np.empty(0), np.empty(0))
    asked = _Queries(np.zeros(len(vectors), np.int64), np.stack(vectors))
    best = _search(gallery, asked, encoder.metric, without_copies=False).scores.astype(np.float64)
    return FirstHits(best[:, 0], best[:, 1])


class _Files:
    """The catalogue's image files, as far as they still are what was indexed."""

    def __init__(self, home: Home, limits: ImageLimits) -> None:
        self._home = home
        self._limits = limits

    def read(self, image_ids: Sequence[int], at_least: int, use: Callable[[int, Pixels], T]) -> list[T | None]:
        """`use(image_id, pixels)` of each image, in order; None where its file is gone, changed or broken."""
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
    _, stored = home.catalogue.vectors.snapshot(collection_id, encoder.encoder_id)
    image_ids, pks = stored.ids.T
    contents = np.array([int(sha256[:15], 16) for sha256 in stored.sha256], dtype=np.int64)
    order = np.argsort(pks, kind="stable")
    _, items = np.unique(pks[order], return_inverse=True)
    return _Gallery(image_ids[order], items.astype(np.int64), contents[order], stored.vectors[order])


def _choose(gallery: _Gallery, queries: int, rng: np.random.Generator) -> tuple[Truth, Ints]:
    """What is known to be the same product, and the places of one photo each of at most `queries` items."""
    several = np.flatnonzero(_contents_of_items(gallery) > 1)
    truth: Truth = "photos" if len(several) >= MIN_CALIBRATION_ITEMS else "views"
    items = several if truth == "photos" else np.unique(gallery.items)
    if len(items) < MIN_CALIBRATION_ITEMS:
        raise CalibrationError(
            f"there are {len(items)} items with a searchable photo; {MIN_CALIBRATION_ITEMS} are needed"
        )
    chosen = rng.permutation(items)[:queries]
    first = np.searchsorted(gallery.items, chosen)
    return truth, first + rng.integers(np.searchsorted(gallery.items, chosen, side="right") - first)


def _contents_of_items(gallery: _Gallery) -> Ints:
    """How many different photos each item has `(items,)`."""
    order = np.lexsort((gallery.contents, gallery.items))
    items, contents = gallery.items[order], gallery.contents[order]
    fresh = np.ones(len(items), dtype=bool)
    fresh[1:] = (np.diff(items) != 0) | (np.diff(contents) != 0)
    return np.bincount(items[fresh])


def _views(gallery: _Gallery, places: Ints, files: _Files, embedder: Embedder, seed: int) -> _Queries:
    """Other views of photos, embedded; without those whose files cannot be read any more."""
    preprocessing = embedder.described.preprocessing

    def view(image_id: int, pixels: Pixels) -> Pixels:
        moved, _ = other_view(np.random.default_rng([seed, image_id]), pixels)
        return preprocessing.apply(moved)

    views = files.read(gallery.image_ids[places].tolist(), 2 * preprocessing.size, view)
    seen = [found for found in views if found is not None]
    if len(seen) < MIN_CALIBRATION_ITEMS:
        raise CalibrationError(
            f"{len(seen)} of {len(places)} photos are still there to be read; {MIN_CALIBRATION_ITEMS} are needed"
        )
    vectors = [embedder.embed(np.stack(seen[start : start + BATCH])) for start in range(0, len(seen), BATCH)]
    kept = np.array([found is not None for found in views])
    return _Queries(places[kept], np.concatenate(vectors))


def _search(gallery: _Gallery, asked: _Queries, metric: Metric, *, without_copies: bool) -> _Hits:
    """The best items of each query; with `without_copies` its own photo is left out, wherever that stands."""
    starts = np.flatnonzero(np.diff(gallery.items, prepend=-1))
    k = min(HITS, len(starts))
    places = np.full((len(asked.places), k), -1, dtype=np.int64)
    best = np.empty((len(asked.places), k), dtype=np.float32)
    rows = max(1, BLOCK_NUMBERS // len(gallery.items))
    for first in range(0, len(asked.places), rows):
        block = slice(first, first + rows)
        scores = exact_scores(asked.vectors[block], gallery.vectors, metric)
        if without_copies:
            scores[gallery.contents[asked.places[block]][:, None] == gallery.contents[None]] = -np.inf
        of_items = np.maximum.reduceat(scores, starts, axis=1)
        top = np.argpartition(-of_items, k - 1, axis=1)[:, :k]
        falling = np.argsort(-np.take_along_axis(of_items, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, falling, axis=1)
        best[block] = np.take_along_axis(of_items, top, axis=1)
        for row, item in np.argwhere(np.isfinite(best[block])):
            start = starts[top[row, item]]
            of_item = scores[row, start : np.searchsorted(gallery.items, top[row, item], side="right")]
            places[first + row, item] = start + of_item.argmax()
    return _Hits(places, best)


def _products(gallery: _Gallery, asked: _Queries, hits: _Hits, files: _Files) -> Ints:
    """The product of each item `(items,)`: itself, or the first of those that near-duplicate photos tie together."""
    product = np.arange(int(gallery.items[-1]) + 1)
    places = np.array(_nearest_others(gallery, asked, hits), dtype=np.int64)
    found = files.read(gallery.image_ids[places].tolist(), PICTURE.size, lambda _, pixels: PICTURE.apply(pixels))
    pictures = [picture.transpose(1, 2, 0) for picture in found if picture is not None]
    if pictures:
        items = gallery.items[places[[picture is not None for picture in found]]]
        tied = products([str(item) for item in items], np.ascontiguousarray(np.stack(pictures)))
        first = np.full(int(tied.max()) + 1, len(product))
        np.minimum.at(first, tied, items)
        product[items] = first[tied]
    return product


def _nearest_others(gallery: _Gallery, asked: _Queries, hits: _Hits) -> list[int]:
    """Places of the photos of the nearest pairs of two items, about `LOOKED_AT` in all."""
    others = (hits.places >= 0) & (gallery.items[hits.places] != gallery.items[asked.places][:, None])
    rows, columns = np.nonzero(others)
    looked: dict[int, None] = {}
    for pair in np.argsort(-hits.scores[rows, columns], kind="stable"):
        looked[int(asked.places[rows[pair]])] = None
        looked[int(hits.places[rows[pair], columns[pair]])] = None
        if len(looked) >= LOOKED_AT:
            break
    return list(looked)
