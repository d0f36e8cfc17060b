"""The placement test in an evaluation: query items are cut out of their photos and placed in empty frames.

Gallery, relevance and excluded identical files are those of the evaluation. See `indexer.swaps.placement`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate.images import embed_pictures
from indexer.measures.metrics import Gains, PerQuery, in_order, metrics_of, rank
from indexer.swaps.placement import MOST_ITEMS, PlacedItems, PlacementTest, place_items, placement_test
from indexer.swaps.sources import SIDE
from indexer.swaps.swap_set import Bank
from indexer.vectors import Floats
from training.data.dataset import FAILED, Dataset, load_dataset
from training.data.masks import SOURCES
from training.preprocessing import Preprocessing

if TYPE_CHECKING:
    from indexer.evaluate.images import GalleryVectors, VectorEncoder
    from training.data.sources import SourceImage

BACKGROUNDS = 5
METRICS = ("precision@1", "map@r")


def place_queries(
    images: Sequence[SourceImage],
    rows: Sequence[int],
    preprocessing: Preprocessing,
    seed: int,
    *,
    limit: int = MOST_ITEMS,
    processes: int | None = None,
) -> PlacedItems:
    """Cut the items out of at most `limit` query photos, and draw their placements on drawn backgrounds.

    Args:
        rows: the queries with relevant images.
        preprocessing: its `fit` determines how photos become squares of 128 pixels.
    """
    chosen = sorted(np.random.default_rng([seed, 37]).permutation(np.asarray(rows, np.intp))[:limit].tolist())
    bank = Bank.drawn(BACKGROUNDS, SIDE)
    if not chosen:
        return _none(bank)
    square = replace(preprocessing, size=SIDE, channels=3)
    dataset = load_dataset([images[row] for row in chosen], square, masks=SOURCES, processes=processes)
    if dataset.masks is None:
        raise ValueError("the photos were read without masks")
    read = _rows_read(dataset, images, chosen)
    usable = [place for place, source in enumerate(dataset.mask_sources) if source != FAILED]
    placed = place_items(
        np.ascontiguousarray(dataset.images.transpose(0, 2, 3, 1))[usable],
        dataset.masks[usable],
        [dataset.item_ids[place] for place in usable],
        bank.pictures,
        seed,
        left_out=+Counter({"photo without a usable mask": len(dataset) - len(usable)}),
    )
    return replace(placed, rows=np.array([read[usable[row]] for row in placed.rows.tolist()], np.intp))


def _none(bank: Bank) -> PlacedItems:
    nothing = np.empty(0, np.intp)
    return PlacedItems(nothing, [], [], [], bank.pictures, nothing)


def _rows_read(dataset: Dataset, images: Sequence[SourceImage], chosen: Sequence[int]) -> list[int]:
    """The row of each photo of a dataset, which skips unreadable photos."""
    skipped = {skipped.where for skipped in dataset.skipped}
    return [row for row in chosen if (images[row].where or images[row].item_id) not in skipped]


def search_queries(
    placed: PlacedItems,
    encoder: VectorEncoder,
    gallery: GalleryVectors,
    gains_of: Callable[[int], Gains],
    same: Mapping[int, Sequence[int]],
    order: NDArray[np.intp],
    *,
    base: PlacementTest | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> PlacementTest | None:
    """`precision@1` and `map@r` of placed queries; None if no query could be cut out.

    Args:
        gains_of: maps the row of a query to the relevance of the gallery `(1, M)`.
        same: gallery positions of files identical to a query, which are excluded from its rankings.
        order: order of the gallery for ties.
    """

    def score(vectors: Floats, rows: NDArray[np.intp]) -> PerQuery:
        blocks = []
        for block, scores in gallery.scored(vectors):
            gains = np.empty_like(scores)
            for row in np.unique(rows[block]).tolist():
                these = np.flatnonzero(rows[block] == row)
                gains[these] = gains_of(row)
                copies = np.array(same.get(row, ()), np.intp)
                scores[np.ix_(these, copies)] = -np.inf
            blocks.append(metrics_of(in_order(gains, rank(scores, order)), (1,)))
        return {name: np.concatenate([values[name] for values in blocks]) for name in METRICS}

    return placement_test(placed, partial(embed_pictures, encoder), score, base=base, replicates=replicates, seed=seed)
