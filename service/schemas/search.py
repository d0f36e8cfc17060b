"""Searches and their results."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.catalogue.records import Rerank
from indexer.search.regions import ChosenBy, FoundItem, Region, Used
from indexer.search.results import Hit, SearchPage
from indexer.search.searcher import MAX_DEPTH, MAX_K
from indexer.typicality.typicality import FLAGGED, MIN_ITEMS, Typicality
from service.schemas.fields import (
    MAX_FILTERS,
    OR_MISSING,
    Attributes,
    Base64Image,
    FileBytes,
    FilterTexts,
    ItemIdText,
    RegionText,
    RegionValue,
    Whole,
    image_url,
)

DEFAULT_K = 10
MAX_DIM = 65_536

FindItems = Annotated[
    bool, Field(description="Also detect all items in the image and return their regions as `regions`.")
]


class Paging(BaseModel):
    """Which results to return, and how to rank them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: Whole = Field(DEFAULT_K, ge=1, le=MAX_K, description="Number of results.")
    offset: Whole = Field(0, ge=0, lt=MAX_DEPTH, description=f"Results to skip; offset + k is at most {MAX_DEPTH}.")
    rerank: Rerank = Field(
        "none",
        description="Second stage: `expand` searches again with the query averaged with its nearest items, "
        "`reciprocal` re-orders the first results by mutual nearest neighbours. Scores remain similarities to the "
        "original query.",
    )

    @model_validator(mode="after")
    def _within_depth(self) -> Self:
        if self.offset + self.k > MAX_DEPTH:
            raise ValueError(f"offset + k is {self.offset + self.k}; the limit is {MAX_DEPTH}")
        return self


QUERIES = ("item_id", "vector", "image_base64")


def _either(query: str) -> dict[str, Any]:
    """The schema of a search by one of `QUERIES`."""
    others = {other: {"type": "null"} for other in QUERIES if other != query}
    of_images = {} if query == "image_base64" else {"region": {"type": "null"}, "find_items": {"const": False}}
    return {"required": [query], "properties": {query: {"not": {"type": "null"}}, **others, **of_images}}


class SearchRequest(Paging):
    """A search by an item, a vector or an image; give exactly one of them."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_either(query) for query in QUERIES]})

    item_id: ItemIdText | None = None
    vector: list[float] | None = Field(None, min_length=1, max_length=MAX_DIM)
    image_base64: Base64Image | None = Field(None, description="Bytes of an image file, as base64.")
    filter: Attributes = Field(
        default_factory=dict, max_length=MAX_FILTERS, description="Attribute values that results must have."
    )
    region: RegionValue | None = None
    find_items: FindItems = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        given = [name for name in QUERIES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of item_id, vector and image_base64; found {found}")
        if self.find_items and self.image_base64 is None:
            raise ValueError("find_items needs an uploaded image; leave it out when searching by item or vector")
        if self.region is not None and self.image_base64 is None:
            raise ValueError("region needs an uploaded image; leave it out when searching by item or vector")
        return self


class SearchForm(Paging):
    """A search by an uploaded file."""

    image: FileBytes = Field(description="Image file.")
    filter: FilterTexts = Field(default_factory=list)
    region: Annotated[RegionText | None, OR_MISSING] = None
    find_items: FindItems = False


class SimilarQuery(Paging):
    """A search for items similar to an item."""

    filter: FilterTexts = Field(default_factory=list)


class SearchResult(BaseModel):
    """A similar item, represented by its most similar image."""

    item_id: str
    score: float = Field(description="Cosine similarity, or negated Euclidean distance; higher is more similar.")
    probability: float | None = Field(
        description="Calibrated probability that the item is the same product; null without a calibration."
    )
    title: str | None
    attributes: dict[str, str]
    image_id: int
    image_url: str

    @classmethod
    def of(cls, collection: str, hit: Hit) -> Self:
        return cls(
            item_id=hit.item_id,
            score=hit.score,
            probability=hit.probability,
            title=hit.title,
            attributes=hit.attributes,
            image_id=hit.image_id,
            image_url=image_url(collection, hit.image_id),
        )


class UsedRegion(BaseModel):
    """The region of the query image that was searched with."""

    region: RegionValue
    chosen_by: ChosenBy = Field(
        description="`request`: the region of the request; `encoder`: the region where the encoder found the item; "
        "`nobody`: the whole image."
    )
    confidence: float | None = Field(
        description="Confidence that the region contains the item, 0 to 1; null unless `chosen_by` is `encoder`."
    )

    @classmethod
    def of(cls, used: Used) -> Self:
        return cls(region=_rounded(used.region), chosen_by=used.chosen_by, confidence=used.confidence)


class FoundRegion(BaseModel):
    """An item detected in the query image; send its `region` to search with this item only."""

    region: RegionValue
    confidence: float = Field(
        description="Finder's expected overlap (IoU) of its mask with the items, 0 to 1; "
        "items found in the same finder pass have the same value."
    )

    @classmethod
    def of(cls, found: FoundItem) -> Self:
        return cls(region=_rounded(found.region), confidence=found.confidence)


def _rounded(region: Region) -> tuple[float, float, float, float]:
    x, y, width, height = (round(value, 4) for value in (region.x, region.y, region.width, region.height))
    return x, y, width, height


class TypicalityOfQuery(BaseModel):
    """How typical the query is of the collection, by its most similar items and the distribution of all."""

    percentile: float = Field(
        description="Percentage of held-out items of the collection that are at most as typical, above 0, at most 100."
    )
    like_catalogue: bool = Field(
        description=f"False if the percentile is below {FLAGGED:g}: nothing in the collection looks like the query."
    )

    @classmethod
    def of(cls, typicality: Typicality) -> Self:
        return cls(percentile=round(typicality.percentile, 2), like_catalogue=typicality.like_catalogue)


class SearchResponse(BaseModel):
    """Results, most similar first."""

    collection: str
    generation: int
    encoder_id: str
    k: int
    offset: int
    total: int = Field(description="Number of items that match the filter.")
    took_ms: float = Field(description="Search time in milliseconds.")
    typicality: TypicalityOfQuery | None = Field(
        description="How typical the query is of the collection; null in a search by item, and in a generation with "
        f"fewer than {MIN_ITEMS} items or built by an earlier version."
    )
    used: UsedRegion | None = Field(
        description="Region of the query image that was searched with; null for a search by item or vector."
    )
    regions: list[FoundRegion] | None = Field(
        description="All items detected in the query image, largest first; null unless `find_items` is true."
    )
    results: list[SearchResult]

    @classmethod
    def of(cls, page: SearchPage, seconds: float) -> Self:
        return cls(
            collection=page.collection,
            generation=page.generation,
            encoder_id=page.encoder_id,
            k=page.k,
            offset=page.offset,
            total=page.total,
            took_ms=round(seconds * 1000, 2),
            typicality=None if page.typicality is None else TypicalityOfQuery.of(page.typicality),
            used=None if page.used is None else UsedRegion.of(page.used),
            regions=None if page.regions is None else [FoundRegion.of(found) for found in page.regions],
            results=[SearchResult.of(page.collection, hit) for hit in page.results],
        )
