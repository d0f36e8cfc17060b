"""Search in the active generation and the live changes since, filtered and grouped by item.

A process has one `Searcher`, which many threads may use. Before each search, one cheap query checks whether the active
generation, the live changes or the calibration have changed. If so, the loaded view is replaced and never modified, so
a running search finishes on the view that it started with. A new generation is loaded in the background; if that takes
longer than `PATIENCE`, searches are answered from the old one, unless something was written meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from indexer.catalogue.home import Home
from indexer.catalogue.records import ActiveState, ItemSummary, Rerank
from indexer.decoding import MemoryBudget, decoded
from indexer.errors import CorruptError, InvalidRequestError, NotFoundError
from indexer.search.filters import KEPT, FilterMatches
from indexer.search.intact import LoadedFiles
from indexer.search.photos import other_photos
from indexer.search.regions import Region, items_in, used_region
from indexer.search.results import Hit, SearchPage
from indexer.search.second_stage import second_stage
from indexer.search.view import ItemScore, Subset, View, best_items, load_view, typicality_of
from indexer.typicality.typicality import NEAREST
from indexer.vectors import Floats
from training.data.decode import Decoded, ImageLimits
from training.embedder import prepare
from training.errors import EncoderError, NitamonoError

if TYPE_CHECKING:
    from indexer.search.query_log import QueryLog
    from indexer.search.recall_probe import RecallProbe
    from training.embedder import Embedder
    from training.sketches.strokes import Strokes

MAX_K = 1000
SMALLEST_SIDE = 1e-6  # of a region, for its resolution: no image has more pixels on a side, and 1 / 1e-300 overflows
MAX_DEPTH = 10_000  # offset + k: deeper pages would re-sort the whole catalogue, and nobody reads them
MAX_QUERY_IMAGES = 8
LEAST_RANKED = NEAREST  # items that are ranked at least: typicality needs them, probabilities the best two
PATIENCE = 0.3  # seconds that a search waits for a new generation to load before it uses the old one


@dataclass(frozen=True)
class _Query:
    """What is searched for: `vectors` `(nq, dim)`, without the item of key `excluded`."""

    vectors: Floats
    k: int
    offset: int
    filters: Mapping[str, str]
    rerank: Rerank
    excluded: int | None = None


class Searcher:
    """Answers searches in a home's collections; query vectors of images go to `query_log`, if given.

    Args:
        memory: the budget for decoding images; None reserves nothing.
        recall_probe: measures the recall of some searches in approximate indexes.
    """

    def __init__(
        self,
        home: Home,
        *,
        device: str = "cpu",
        threads: int | None = None,
        limits: ImageLimits | None = None,
        memory: MemoryBudget | None = None,
        query_log: QueryLog | None = None,
        recall_probe: RecallProbe | None = None,
    ) -> None:
        self.home = home
        self._matches = FilterMatches(home.catalogue)
        self._recall_probe = recall_probe
        self._memory = memory
        self._query_log = query_log
        self._threads = threads
        self._limits = limits
        self._device = device
        self._lock = threading.Lock()
        self._views: dict[str, View] = {}
        self._embedders: dict[str, Embedder] = {}
        self._encoder_files: dict[str, LoadedFiles] = {}
        self._loading: dict[str, threading.Event] = {}  # by collection: set when the new generation has loaded
        self._loading_encoder = threading.Lock()

    def warm(self, collection: str) -> int:
        """Load a collection's index and encoder; returns the generation, or raises `NotFoundError` without one."""
        view = self._view(collection)
        self.embedder(view.manifest.encoder_id)
        return view.manifest.number

    def damage(self, collection: str) -> str | None:
        """What is damaged on the disk of what a collection is searched with; None if nothing is, or is loaded.

        Searches use the copy in memory, which was verified when it was loaded.

        Raises:
            CorruptError: the collection cannot be searched, because the table of its vectors is missing.
        """
        if (view := self._views.get(collection)) is None:
            return None
        encoder = self._encoder_files.get(view.manifest.encoder_id)
        return view.damage() or (encoder.damage() if encoder is not None else None)

    def close(self) -> None:
        if self._recall_probe is not None:
            self._recall_probe.close()
        with self._lock:
            self._views.clear()
            self._embedders.clear()

    def embedder(self, encoder_id: str) -> Embedder:
        """The embedder of an encoder of this home, loaded at the first call."""
        from training.embedder import load_embedder, warm_up

        if (held := self._embedders.get(encoder_id)) is not None:
            return held
        with self._loading_encoder:  # searches with loaded encoders do not take this lock
            if encoder_id not in self._embedders:
                verify = partial(self.home.verified_encoder, encoder_id)
                self._encoder_files[encoder_id] = LoadedFiles(self.home.encoder_directory(encoder_id), verify)
                described = self.home.encoder(encoder_id)
                try:
                    loaded = load_embedder(described, device=self._device, threads=self._threads)
                except EncoderError as exc:
                    raise CorruptError(f"{exc}; run `nitamono repair`") from exc
                warm_up(loaded)
                self._embedders[encoder_id] = loaded
            return self._embedders[encoder_id]

    def decoded(self, data: bytes, *, at_least: int) -> AbstractContextManager[Decoded]:
        """Decode an image within the limits and the memory budget; see `indexer.decoding.decoded`."""
        return decoded(data, at_least=at_least, limits=self._limits, memory=self._memory)

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
        """Find the items most similar to an image file, or to a region of it.

        Args:
            find_items: return the regions of all items in the image as well, unless it is a drawing.

        Raises:
            ImageError: the image cannot be decoded.
        """
        _check_page(k, offset)
        view = self._view(collection)
        embedder = self.embedder(view.manifest.encoder_id)
        # A small region must be decoded at a higher resolution than the whole image.
        smallest = max(SMALLEST_SIDE, min(region.width, region.height)) if region else 1.0
        with self.decoded(data, at_least=ceil(embedder.described.preprocessing.least_side / smallest)) as image:
            size = (image.width, image.height)
            if image.strokes is not None and region:
                raise InvalidRequestError("region", "region needs a photo; leave it out when searching with a drawing")
            pixels = prepare(embedder, image._replace(pixels=region.crop(image.pixels)) if region else image)
            regions = items_in(image.pixels) if find_items and image.strokes is None else None
            del image  # its memory is free again after the block
        vectors, found = embedder.embed_with_regions(pixels, framed=region is not None)
        if self._query_log is not None:
            self._query_log.add(view.state.collection_id, view.manifest.encoder_id, vectors)
        page = self._search(collection, view, _Query(vectors, k, offset, filters or {}, rerank))
        return replace(page, used=used_region(embedder, region, found, size), regions=regions)

    def redraw(self, collection: str, data: bytes) -> Strokes:
        """A drawing as the collection's encoder draws it again from its latent, in a box of 255 units.

        Raises:
            ImageError: the data is not a usable drawing.
            InvalidRequestError: the collection has photos, or its encoder has no latent to draw from.
        """
        from training.embedder import SketchEmbedder

        embedder = Searcher.embedder(self, self._view(collection).manifest.encoder_id)  # not a subclass's wrapper
        if not isinstance(embedder, SketchEmbedder):
            raise InvalidRequestError("collection", f"collection {collection!r} has photos; only drawings are redrawn")
        if not embedder.can_redraw:
            raise InvalidRequestError(
                "collection",
                f"the encoder of collection {collection!r} is a decoder alone (latent_dim 0), which searches but does "
                "not redraw; index it with an encoder that has a latent",
            )
        with self.decoded(data, at_least=embedder.described.preprocessing.least_side) as image:
            rows = embedder.described.preprocessing.of(image)
        return embedder.redraw(rows[None])

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
        """Find the items most similar to an item's images, without the item itself."""
        _check_page(k, offset)
        view = self._view(collection)
        pk = self.home.catalogue.items.key(view.state.collection_id, item_id)
        stored = self.home.catalogue.vectors.of_items(view.manifest.encoder_id, view.manifest.dim, [pk])
        queries = stored.vectors[:MAX_QUERY_IMAGES]
        if not len(queries):
            raise NotFoundError(f"item {item_id!r} has no searchable image; see `nitamono rejects list`")
        return self._search(collection, view, _Query(queries, k, offset, filters or {}, rerank, excluded=pk))

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
        """Find the items nearest to a vector of the active encoder."""
        _check_page(k, offset)
        view = self._view(collection)
        if len(vector) != view.manifest.dim:
            raise InvalidRequestError(
                "vector", f"vector has {len(vector)} numbers; collection {collection!r} needs {view.manifest.dim}"
            )
        query = _query_vector(vector, is_cosine=view.manifest.metric == "cosine")
        return self._search(collection, view, _Query(query[None], k, offset, filters or {}, rerank))

    def _search(self, collection: str, view: View, query: _Query) -> SearchPage:
        """Answer from a view, or from a newer one where something that it needs is gone by now."""
        try:
            page, is_whole = self._answer(collection, view, query)
            fresh = view if is_whole else self._view(collection)
            if fresh.state == view.state or fresh.state.encoder_id != view.state.encoder_id:
                return page
        except CorruptError:
            state = self.home.catalogue.active_state(collection)
            if state.generation == view.state.generation or state.encoder_id != view.state.encoder_id:
                raise
            fresh = self._replace(collection, state, None)
        return self._search(collection, fresh, query)

    def _answer(self, collection: str, view: View, query: _Query) -> tuple[SearchPage, bool]:
        """A page of results, and whether none of them was deleted before it could be described."""
        queries, filters, excluded = query.vectors, query.filters, query.excluded
        k, offset = query.k, query.offset
        subset, everything = self._subset(view, filters), self._subset(view, {})
        ranked = second_stage(view, queries, max(offset + k, LEAST_RANKED), subset, excluded, query.rerank, everything)
        page = ranked[offset : offset + k]
        if self._recall_probe is not None:
            self._recall_probe.offer(collection, view.index, queries[:1], subset.allowed, filtered=bool(filters))
        typicality = None
        if view.typicality is not None and excluded is None:
            is_plain = query.rerank == "none" and not filters
            nearest = ranked if is_plain else best_items(view, queries, NEAREST, everything, None)
            typicality = typicality_of(view, queries, nearest)
        probabilities: Sequence[float | None] = [None] * len(page)
        if view.calibration is not None and excluded is None:
            # Probabilities follow the similarities in falling order, which re-ranking leaves unchanged.
            scores = sorted((hit.score for hit in ranked), reverse=True)
            probability_of = dict(zip(scores, view.calibration.probabilities(scores), strict=True))
            probabilities = [probability_of[hit.score] for hit in page]
        summaries = self.home.catalogue.items.summaries(
            (hit.pk for hit in page), {hit.pk: hit.image_id for hit in page}
        )
        shown = self._photos_instead(page, summaries)
        results = [
            Hit(
                found.item_id,
                hit.score,
                probability,
                found.title,
                found.attributes,
                shown.get(hit.image_id, hit.image_id),
            )
            for hit, probability in zip(page, probabilities, strict=True)
            if (found := summaries.get(hit.pk)) is not None
        ]
        # The subset counts the query item if it passes the filter; the results leave it out.
        total = subset.items - (excluded is not None and self._passes(view, subset, excluded))
        number, encoder_id = view.manifest.number, view.manifest.encoder_id
        whole = len(results) == len(page)
        return SearchPage(collection, number, encoder_id, k, offset, total, results, typicality), whole

    def _photos_instead(self, page: Sequence[ItemScore], summaries: Mapping[int, ItemSummary]) -> dict[int, int]:
        """The image to show instead of each hit's whose file is gone."""
        uris = {hit.image_id: found.uri for hit in page if (found := summaries.get(hit.pk)) is not None}
        gone = [image_id for image_id, uri in uris.items() if uri is not None and not self.home.has_file(uri)]
        return other_photos(self.home, gone)

    @staticmethod
    def _passes(view: View, subset: Subset, pk: int) -> bool:
        positions = view.rows.positions(view.rows.known(np.array([pk])))
        indexed = len(positions) > 0 if subset.allowed is None else bool(subset.allowed.mask[positions].any())
        return indexed or bool((view.live_ids[subset.live, 1] == pk).any())

    def _subset(self, view: View, filters: Mapping[str, str]) -> Subset:
        key = tuple(sorted(filters.items()))
        with self._lock:
            if key in view.subsets:
                view.subsets.move_to_end(key)
                return view.subsets[key]
        state = view.state
        items = self._matches.items(state.collection_id, filters, state.last_change) if filters else None
        subset = view.subset(items)
        with self._lock:
            view.subsets[key] = subset
            while len(view.subsets) > KEPT:
                view.subsets.popitem(last=False)
        return subset

    def _view(self, collection: str) -> View:
        state = self.home.catalogue.active_state(collection)
        held = self._views.get(collection)
        if held is not None and held.state == state:
            return held
        if held is not None and _is_only_another_generation(held.state, state):
            self._load_in_background(collection, state).wait(PATIENCE)
            return self._views.get(collection) or self._replace(collection, state, None)
        return self._replace(collection, state, held)

    def _load_in_background(self, collection: str, state: ActiveState) -> threading.Event:
        """Load a new generation and its encoder in the background; the event is set when that has ended."""
        with self._lock:
            if (running := self._loading.get(collection)) is not None:
                return running
            ended = self._loading[collection] = threading.Event()

        def load() -> None:
            loaded = False
            try:
                self.embedder(state.encoder_id)
                self._replace(collection, state, None)
                loaded = True
            except NitamonoError:
                pass  # the next search loads it in the foreground and raises the error
            finally:
                with self._lock:
                    if not loaded:
                        self._views.pop(collection, None)
                    del self._loading[collection]
                ended.set()

        threading.Thread(target=load, name=f"load-{collection}", daemon=True).start()
        return ended

    def _replace(self, collection: str, state: ActiveState, held: View | None) -> View:
        view = load_view(self.home, collection, state, held)
        with self._lock:
            # A view that was slow to load must not replace one that includes later writes.
            newest = self._views.get(collection)
            if newest is None or newest.state.last_change <= state.last_change:
                self._views[collection] = view
        return view


def _is_only_another_generation(held: ActiveState, state: ActiveState) -> bool:
    """Whether nothing was written since: the held view then still answers correctly, from the previous generation."""
    return held.generation != state.generation and held.last_change == state.last_change


def _query_vector(vector: Sequence[float], *, is_cosine: bool) -> Floats:
    """A vector in 32 bits, of unit length for cosine similarity."""
    query = np.asarray(vector, dtype=np.float64)
    largest = float(np.abs(query).max())
    if not np.isfinite(largest) or (is_cosine and largest == 0):
        raise InvalidRequestError("vector", "vector must hold finite numbers, not all zero")
    if is_cosine:
        query = query / largest  # its length is then finite
        query = query / np.linalg.norm(query)
    elif largest > np.finfo(np.float32).max:
        raise InvalidRequestError("vector", "vector must hold numbers of 32 bits, at most 3.4e38")
    return query.astype(np.float32)


def _check_page(k: int, offset: int) -> None:
    if not 1 <= k <= MAX_K:
        raise InvalidRequestError("k", f"k must be between 1 and {MAX_K}, not {k}")
    if offset < 0 or offset + k > MAX_DEPTH:
        raise InvalidRequestError("offset", f"offset must be at least 0 and offset + k at most {MAX_DEPTH}")
