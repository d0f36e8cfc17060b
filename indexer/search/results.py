"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass

from indexer.search.regions import FoundItem, Used
from indexer.typicality.typicality import Typicality


@dataclass(frozen=True)
class Hit:
    """A similar item, represented by its best image.

    Args:
        image_id: the best image; another one of the item if the file of the best is gone.
        score: cosine similarity, or the negated distance for an L2 encoder.
        probability: of being the same product. None until the collection is calibrated for the active encoder, and in
            searches by item: calibrations hold for queries whose product is mostly in the gallery, and a search by
            item leaves its own product out.
    """

    item_id: str
    score: float
    probability: float | None
    title: str | None
    attributes: dict[str, str]
    image_id: int


@dataclass(frozen=True)
class SearchPage:
    """The hits from `offset` on.

    Args:
        total: number of items that pass the filter.
        typicality: how typical the query is of the collection. None in searches by item, in generations that were
            built by earlier versions or from fewer than 100 items, and if the generation's file for it is damaged.
        used: the region that was embedded; None unless the query is an image.
        regions: all items in the query image; None unless requested.
    """

    collection: str
    generation: int
    encoder_id: str
    k: int
    offset: int
    total: int
    results: list[Hit]
    typicality: Typicality | None = None
    used: Used | None = None
    regions: list[FoundItem] | None = None
