"""What one search sees: a generation, and what was written since on top of it.

A view is loaded once and never altered; its subsets for filters are kept beside it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.calibrate.calibration import Calibration, stored_calibration
from indexer.catalogue.home import Home
from indexer.catalogue.records import SearchState
from indexer.errors import MismatchError
from indexer.generations.manifest import Manifest, load_ids, load_neighbours
from indexer.vectors import Floats, Ints, VectorIndex
from indexer.vectors.exact import exact_scores
from indexer.vectors.rerank import NeighbourLists


class Ranked(NamedTuple):
    pk: int
    image_id: int
    score: float


class Subset(NamedTuple):
    """The part of a view that passes a filter; `indexed_mask` is None where that is the whole index."""

    indexed_mask: NDArray[np.bool_] | None
    indexed: int  # images of the index that pass
    live: NDArray[np.bool_]
    items: int


@dataclass(frozen=True)
class View:
    """A generation and the live changes on top of it: everything that one search sees."""

    state: SearchState
    manifest: Manifest
    index: VectorIndex
    ids: Ints
    removed: frozenset[int]  # item keys whose vectors in the index no longer count
    live_ids: Ints  # (n, 2) image_id, item key
    live_vectors: Floats
    calibration: Calibration | None  # of the manifest's encoder
    lists: NeighbourLists | None  # of the index; None where the generation holds none
    subsets: OrderedDict[tuple[tuple[str, str], ...], Subset] = field(default_factory=OrderedDict)

    def subset(self, items: NDArray[np.int64] | None) -> Subset:
        """What passes a filter, given the sorted keys of the items that do; None for no filter."""
        pks = self.ids[:, 1]
        mask: NDArray[np.bool_] | None = None
        live = np.ones(len(self.live_ids), dtype=bool)
        if items is not None:
            mask = np.isin(pks, items)
            live = np.isin(self.live_ids[:, 1], items)
        if self.removed:
            kept = ~np.isin(pks, np.fromiter(self.removed, dtype=np.int64, count=len(self.removed)))
            mask = kept if mask is None else mask & kept
        indexed = pks if mask is None else pks[mask]
        count = len(np.unique(np.concatenate([indexed, self.live_ids[live, 1]])))
        return Subset(mask, len(indexed), live, count)


def load_view(home: Home, collection: str, state: SearchState, held: View | None) -> View:
    """What a state stands for; of the view that is held, the index is kept where it is of the same generation."""
    if held is not None and held.state.generation == state.generation:
        manifest, index, ids, lists = held.manifest, held.index, held.ids, held.lists
    else:
        manifest, index, ids, lists = _open_generation(home, collection, state)
    changed = home.catalogue.live_items(state.collection_id, manifest.watermark)
    stored = home.catalogue.vectors_of_items(manifest.encoder_id, sorted(changed))
    live_ids = np.array([(image_id, pk) for pk, image_id, _ in stored], dtype=np.int64).reshape(-1, 2)
    blobs = b"".join(vector for _, _, vector in stored)
    live_vectors = np.frombuffer(blobs, dtype="<f4").reshape(-1, manifest.dim).astype(np.float32)
    calibration = stored_calibration(home, state.collection_id, manifest.encoder_id)
    return View(state, manifest, index, ids, frozenset(changed), live_ids, live_vectors, calibration, lists)


def _open_generation(
    home: Home, collection: str, state: SearchState
) -> tuple[Manifest, VectorIndex, Ints, NeighbourLists | None]:
    from indexer.vectors.faiss import FaissIndex

    directory = home.generation_directory(collection, state.generation or 0)
    manifest = Manifest.read(directory)
    if manifest.encoder_id != state.encoder_id:
        raise MismatchError(
            f"generation {state.generation} of {collection!r} was built with encoder {manifest.encoder_id[:12]}, "
            f"the catalogue says {str(state.encoder_id)[:12]}; run `nitamono generations verify`"
        )
    index = FaissIndex.read(directory / "index.faiss", manifest.factory)
    return manifest, index, load_ids(directory), load_neighbours(directory, manifest)


def rank(view: View, queries: Floats, need: int, subset: Subset, without: int | None) -> list[Ranked]:
    """The `need` best items of a subset, each by its best image and query, but for one item."""
    best = _score_live(view, queries, subset.live)
    k = min(2 * need, subset.indexed)
    while True:
        unseen = _add_indexed(view, queries, k, subset, best)
        ranked = sorted((hit for hit in best.values() if hit.pk != without), key=lambda hit: (-hit.score, hit.pk))
        # Settled once `need` items stand above all that was not seen; equals are waited for, so pages never overlap.
        if unseen is None or (len(ranked) >= need and ranked[need - 1].score > unseen):
            return ranked[:need]
        k = min(4 * k, subset.indexed)


def _score_live(view: View, queries: Floats, live: NDArray[np.bool_]) -> dict[int, Ranked]:
    best: dict[int, Ranked] = {}
    if live.any():
        scores = exact_scores(queries, view.live_vectors[live], view.manifest.metric).max(axis=0)
        for (image_id, pk), score in zip(view.live_ids[live].tolist(), scores.tolist(), strict=True):
            _keep_best(best, Ranked(pk, image_id, score))
    return best


def _add_indexed(view: View, queries: Floats, k: int, subset: Subset, best: dict[int, Ranked]) -> float | None:
    """Merge the index's `k` best images of each query into `best`; the best score that an image not seen may have."""
    if k == 0:
        return None
    found = view.index.search(queries, k, subset.indexed_mask)
    for positions, scores in zip(found.positions, found.scores, strict=True):
        real = positions >= 0
        for (image_id, pk), score in zip(view.ids[positions[real]].tolist(), scores[real].tolist(), strict=True):
            _keep_best(best, Ranked(pk, image_id, score))
    if k >= subset.indexed:
        return None
    return float(found.scores[:, -1].max())


def _keep_best(best: dict[int, Ranked], hit: Ranked) -> None:
    known = best.get(hit.pk)
    if known is None or (-hit.score, hit.image_id) < (-known.score, known.image_id):
        best[hit.pk] = hit
