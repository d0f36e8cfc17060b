"""Search: the active generation, overlaid with what has been written since, filtered and grouped by item.

A `Searcher` belongs to one process and may be used by many threads. Before each search one cheap query tells whether
the active generation, the live changes or the calibration have moved on; what is loaded is then replaced, never
altered, so a search that is under way ends on what it began with. Another generation is loaded beside the one that is
served; where that takes longer than a moment the old one goes on answering, unless something was written meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.home import Home
from indexer.catalogue.records import Rerank, SearchState
from indexer.errors import InvalidRequestError, NotFoundError
from indexer.search.second_stage import second_stage
from indexer.search.view import Subset, View, load_view
from indexer.vectors import Floats
from training.data.decode import ImageLimits, decode_image
from training.embedder import prepare
from training.errors import NitamonoError
from training.preprocessing import Box, Preprocessing

if TYPE_CHECKING:
    from indexer.search.query_log import QueryLog
    from training.embedder import Embedder

MAX_K = 1000
MAX_DEPTH = 10_000  # offset + k: deeper than that, grouping re-sorts the catalogue for a page nobody reads
MAX_QUERY_IMAGES = 8
FILTERS_KEPT = 64
SLIVER = 1e-3  # least side of a region that is told
AROUND = 0.08  # an item's region beyond it, on each side in shares of its longer one, as `item-first` cuts items out
PATIENCE = 0.3  # seconds that a search waits for another generation to be loaded before it is answered by the old one


ChosenBy = Literal["request", "encoder", "nobody"]


@dataclass(frozen=True)
class Region:
    """A rectangle of the upright image, in fractions of its width and height."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        values = (self.x, self.y, self.width, self.height)
        inside = (
            0 <= self.x < 1 and 0 <= self.y < 1 and self.x + self.width <= 1 + 1e-6 and self.y + self.height <= 1 + 1e-6
        )
        if not (all(np.isfinite(values)) and inside and self.width > 0 and self.height > 0):
            raise InvalidRequestError(
                "region", f"region {list(values)} must be x,y,width,height as fractions inside the image, 0 to 1"
            )

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of `(H, W, 3)` pixels inside, at least one pixel each way."""
        height, width = pixels.shape[:2]
        left, top = min(int(self.x * width), width - 1), min(int(self.y * height), height - 1)
        right = max(left + 1, ceil((self.x + self.width) * width - 1e-6))
        bottom = max(top + 1, ceil((self.y + self.height) * height - 1e-6))
        return np.ascontiguousarray(pixels[top:bottom, left:right])


WHOLE = Region(0.0, 0.0, 1.0, 1.0)


def parse_region(text: str) -> Region:
    """A region from `x,y,width,height`; `InvalidRequestError` where it is not one."""
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InvalidRequestError("region", f"region {text!r} must be four numbers: x,y,width,height") from exc
    return Region(x, y, width, height)


def parse_filters(given: Iterable[str]) -> dict[str, str]:
    """`key=value` texts as a mapping; `InvalidRequestError` where one is not of that form, or a key stands twice."""
    filters: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidRequestError("filter", f"filter {text!r} must be key=value")
        if key in filters:
            raise InvalidRequestError("filter", f"filter {key!r} stands twice; give one value")
        filters[key] = value
    return filters


@dataclass(frozen=True)
class Hit:
    """One similar item, by its best image. `score` is the cosine, or the negated distance for an L2 encoder.

    `probability` (same product) is None until the collection is calibrated for the encoder in service, and in searches
    by item: calibrations are of searches whose product mostly is there to be found, and theirs is left out.
    """

    item_id: str
    score: float
    probability: float | None
    title: str | None
    attributes: dict[str, str]
    image_id: int


@dataclass(frozen=True)
class Used:
    """What of a query image was searched with: a region of it, and who chose that.

    Args:
        chosen_by: `request` for a region that was asked for, `encoder` for one where it found the item, `nobody` for
            the whole image.
        confidence: of the encoder that the region holds the item, in [0, 1]; None unless it chose.
    """

    region: Region
    chosen_by: ChosenBy
    confidence: float | None = None


@dataclass(frozen=True)
class FoundItem:
    """An item in a query image.

    Args:
        region: to search with.
        confidence: finder's expected overlap (IoU) of its mask with the items, 0 to 1; equal for items found in one
            look.
    """

    region: Region
    confidence: float


@dataclass(frozen=True)
class SearchPage:
    """`results` from `offset` on, of `total` items that pass the filter.

    Args:
        used: of a query image, None without one.
        regions: of all items in a query image, None unless they were asked for.
    """

    collection: str
    generation: int
    encoder_id: str
    k: int
    offset: int
    total: int
    results: list[Hit]
    used: Used | None = None
    regions: list[FoundItem] | None = None


class Searcher:
    """Answers searches over a home's collections; the vectors of images go to the query log, where there is one."""

    def __init__(
        self,
        home: Home,
        *,
        device: str = "cpu",
        threads: int | None = None,
        limits: ImageLimits | None = None,
        query_log: QueryLog | None = None,
    ) -> None:
        self.home = home
        self._query_log = query_log
        self._threads = threads
        self.limits = limits
        self._device = device
        self._lock = threading.Lock()
        self._views: dict[str, View] = {}
        self._embedders: dict[str, Embedder] = {}
        self._loading: dict[str, threading.Event] = {}  # collections of which another generation is being loaded
        self._loading_encoder = threading.Lock()

    def warm(self, collection: str) -> int:
        """Load a collection's index and encoder; returns the generation. `NotFoundError` where there is none."""
        view = self._view(collection)
        self.embedder(view.manifest.encoder_id)
        return view.manifest.number

    def close(self) -> None:
        with self._lock:
            self._views.clear()
            self._embedders.clear()

    def embedder(self, encoder_id: str) -> Embedder:
        """The embedder of an encoder that this home keeps, loaded once."""
        from training.embedder import load_embedder

        if (held := self._embedders.get(encoder_id)) is not None:
            return held
        with self._loading_encoder:  # searches with those that are loaded do not wait for this
            if encoder_id not in self._embedders:
                directory = self.home.encoder(encoder_id).directory
                loaded = load_embedder(directory, device=self._device, threads=self._threads)
                loaded.embed(prepare(loaded, np.zeros((8, 8, 3), np.uint8)))  # the first use imports and allocates
                self._embedders[encoder_id] = loaded
            return self._embedders[encoder_id]

    def search_image(
        self,
        collection: str,
        data: bytes,
        *,
        k: int = 10,
        offset: int = 0,
        filters: Mapping[str, str] | None = None,
        region: Region | None = None,
        find_items: bool = False,
        rerank: Rerank = "none",
    ) -> SearchPage:
        """The items most like an image file, or like a region of it; `ImageError` where it cannot be used.

        Args:
            find_items: tell the regions of all items in the image as well, whatever region is searched with.
        """
        _check_page(k, offset)
        view = self._view(collection)
        embedder = self.embedder(view.manifest.encoder_id)
        # A small region needs more of the file's pixels than the whole image does.
        smallest = min(region.width, region.height) if region else 1.0
        decoded = decode_image(
            data, at_least=ceil(embedder.described.preprocessing.size / smallest), limits=self.limits
        )
        pixels = region.crop(decoded.pixels) if region else decoded.pixels
        vectors, found = embedder.embed_with_regions(prepare(embedder, pixels), framed=region is not None)
        if self._query_log is not None:
            self._query_log.add(view.state.collection_id, view.manifest.encoder_id, vectors)
        page = self._search(collection, view, vectors, k, offset, filters, None, rerank)
        used = _used(embedder, region, found, (decoded.width, decoded.height))
        return replace(page, used=used, regions=_items(decoded.pixels) if find_items else None)

    def search_item(
        self,
        collection: str,
        item_id: str,
        *,
        k: int = 10,
        offset: int = 0,
        filters: Mapping[str, str] | None = None,
        rerank: Rerank = "none",
    ) -> SearchPage:
        """The items most like an item's own images, without itself."""
        _check_page(k, offset)
        view = self._view(collection)
        pk = self.home.catalogue.item_pk(view.state.collection_id, item_id)
        stored = self.home.catalogue.vectors_of_items(view.manifest.encoder_id, [pk])[:MAX_QUERY_IMAGES]
        if not stored:
            raise NotFoundError(f"item {item_id!r} has no searchable image; see `nitamono rejects list`")
        queries = np.stack([np.frombuffer(vector, dtype="<f4") for _, _, vector in stored])
        return self._search(collection, view, queries, k, offset, filters, pk, rerank)

    def search_vector(
        self,
        collection: str,
        vector: Sequence[float],
        *,
        k: int = 10,
        offset: int = 0,
        filters: Mapping[str, str] | None = None,
        rerank: Rerank = "none",
    ) -> SearchPage:
        """The items nearest to a vector by the collection's encoder."""
        _check_page(k, offset)
        view = self._view(collection)
        if len(vector) != view.manifest.dim:
            raise InvalidRequestError(
                "vector", f"vector has {len(vector)} numbers; collection {collection!r} needs {view.manifest.dim}"
            )
        query = np.asarray(vector, dtype=np.float64)
        norm = np.linalg.norm(query)
        if not np.isfinite(norm) or (norm == 0 and view.manifest.metric == "cosine"):
            raise InvalidRequestError("vector", "vector must hold finite numbers, not all zero")
        if view.manifest.metric == "cosine":
            query = query / norm
        return self._search(collection, view, query[None].astype(np.float32), k, offset, filters, None, rerank)

    def _search(
        self,
        collection: str,
        view: View,
        queries: Floats,
        k: int,
        offset: int,
        filters: Mapping[str, str] | None,
        without: int | None,
        rerank: Rerank,
    ) -> SearchPage:
        subset = self._subset(view, filters or {})
        ranked = second_stage(view, queries, max(offset + k, 2), subset, without, rerank, self._subset(view, {}))
        page = ranked[offset : offset + k]
        probabilities: Sequence[float | None] = [None] * len(page)
        if view.calibration is not None and without is None:
            # Of similarities, in their order: re-ranking changes neither what they are nor what they mean.
            scores = sorted((hit.score for hit in ranked), reverse=True)
            likely = dict(zip(scores, view.calibration.probabilities(scores), strict=True))
            probabilities = [likely[hit.score] for hit in page]
        summaries = self.home.catalogue.summaries(hit.pk for hit in page)
        results = [
            Hit(found.item_id, hit.score, probability, found.title, found.attributes, hit.image_id)
            for hit, probability in zip(page, probabilities, strict=True)
            if (found := summaries.get(hit.pk)) is not None
        ]
        # The query item passes no filter that it does not carry itself, but has been counted where it does.
        total = subset.items - (without is not None and self._passes(view, subset, without))
        return SearchPage(collection, view.manifest.number, view.manifest.encoder_id, k, offset, total, results)

    @staticmethod
    def _passes(view: View, subset: Subset, pk: int) -> bool:
        indexed = view.ids[:, 1] if subset.indexed_mask is None else view.ids[subset.indexed_mask, 1]
        return bool((indexed == pk).any() or (view.live_ids[subset.live, 1] == pk).any())

    def _subset(self, view: View, filters: Mapping[str, str]) -> Subset:
        key = tuple(sorted(filters.items()))
        with self._lock:
            if key in view.subsets:
                view.subsets.move_to_end(key)
                return view.subsets[key]
        subset = view.subset(self._matching_items(view, filters) if filters else None)
        with self._lock:
            view.subsets[key] = subset
            while len(view.subsets) > FILTERS_KEPT:
                view.subsets.popitem(last=False)
        return subset

    def _matching_items(self, view: View, filters: Mapping[str, str]) -> NDArray[np.int64]:
        known = self.home.catalogue.attribute_names(view.state.collection_id)
        for name in filters:
            if name not in known:
                there = ", ".join(sorted(known)) or "none"
                raise InvalidRequestError("filter", f"no item has an attribute {name!r}; attributes are {there}")
        return np.array(self.home.catalogue.matching_items(view.state.collection_id, filters), dtype=np.int64)

    def _view(self, collection: str) -> View:
        state = self.home.catalogue.search_state(collection)
        if state.generation is None:
            raise NotFoundError(f"collection {collection!r} has no index yet; run `nitamono index SOURCE` first")
        held = self._views.get(collection)
        if held is not None and held.state == state:
            return held
        if held is not None and _is_only_another_generation(held.state, state):
            self._begin_to_load(collection, state).wait(PATIENCE)
            return self._views.get(collection) or self._replace(collection, state, None)
        return self._replace(collection, state, held)

    def _begin_to_load(self, collection: str, state: SearchState) -> threading.Event:
        """Load another generation and its encoder beside what is served; the event tells when that has ended."""
        with self._lock:
            if (under_way := self._loading.get(collection)) is not None:
                return under_way
            ended = self._loading[collection] = threading.Event()

        def load() -> None:
            loaded = False
            try:
                if state.encoder_id is not None:
                    self.embedder(state.encoder_id)
                self._replace(collection, state, None)
                loaded = True
            except NitamonoError:
                pass  # told by the next search, which loads it in the open
            finally:
                with self._lock:
                    if not loaded:
                        self._views.pop(collection, None)
                    del self._loading[collection]
                ended.set()

        threading.Thread(target=load, name=f"load-{collection}", daemon=True).start()
        return ended

    def _replace(self, collection: str, state: SearchState, held: View | None) -> View:
        view = load_view(self.home, collection, state, held)
        with self._lock:
            # One that took longer to load must not take the place of one that knows of later writes.
            newest = self._views.get(collection)
            if newest is None or newest.state.last_change <= state.last_change:
                self._views[collection] = view
        return view


def _used(embedder: Embedder, asked: Region | None, found: NDArray[np.float32] | None, size: tuple[int, int]) -> Used:
    """What of an image of a `(width, height)` was used, by what was asked for and what the encoder found."""
    if asked is not None:
        return Used(asked, "request")
    if found is None:
        return Used(WHOLE, "nobody")
    left, top, right, bottom, confidence = (float(value) for value in found[0])
    region = _region(embedder.described.preprocessing.to_source((left, top, right, bottom), *size))
    return Used(region, "encoder", min(1.0, max(0.0, confidence)))


def _items(pixels: NDArray[np.uint8]) -> list[FoundItem]:
    """The items of an image `(H, W, 3)`, by the shipped finder."""
    from training.data.item_finder import finder_side, predict
    from training.finder.regions import find_regions

    height, width = pixels.shape[:2]
    square = Preprocessing(finder_side(), 3, "pad")
    found = find_regions(square.apply(pixels).transpose(1, 2, 0), predict)
    return [FoundItem(_region(square.to_source(_wider(item.box), width, height)), item.confidence) for item in found]


def _wider(box: Box) -> Box:
    left, top, right, bottom = box
    more = AROUND * max(right - left, bottom - top)
    return left - more, top - more, right + more, bottom + more


def _region(box: Box) -> Region:
    """A box of left, top, right, bottom in shares of the image, within it, as a region that has some size."""
    x, y = min(box[0], 1.0 - SLIVER), min(box[1], 1.0 - SLIVER)
    return Region(x, y, max(box[2] - x, SLIVER), max(box[3] - y, SLIVER))


def _is_only_another_generation(held: SearchState, state: SearchState) -> bool:
    """Whether nothing was written since: what is held then answers rightly, if by the generation before."""
    return held.generation != state.generation and held.last_change == state.last_change


def _check_page(k: int, offset: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidRequestError("k", f"k must be between 1 and {MAX_K}, not {k}")
    if offset < 0 or offset + k > MAX_DEPTH:
        raise InvalidRequestError("offset", f"offset must be at least 0 and offset + k at most {MAX_DEPTH}")
