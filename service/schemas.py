"""What goes in and out over HTTP."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Self
from urllib.parse import quote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from indexer.catalogue.records import (
    CollectionRecord,
    EncoderRecord,
    GenerationRecord,
    ImageRecord,
    ItemRecord,
    Rerank,
)
from indexer.ingest.items import MAX_IMAGES
from indexer.search.regions import ChosenBy, FoundItem, Region, Used
from indexer.search.results import Hit, SearchPage
from indexer.search.searcher import MAX_DEPTH, MAX_K
from training.data.sources import MAX_ITEM_ID

DEFAULT_K = 10
MAX_DIM = 65_536
MAX_FILTERS = 32


def _decode_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("expected the file's bytes as base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise ValueError(f"not valid base64 ({exc})") from exc


def _split_region(value: Any) -> Any:
    return value.split(",") if isinstance(value, str) else value


Base64Image = Annotated[
    bytes, PlainValidator(_decode_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
FileBytes = Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})]
Fraction = Annotated[float, Field(ge=0, le=1)]
RegionValue = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Field(description="x, y, width, height of a part of the upright image, as fractions of its size"),
]
RegionText = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    BeforeValidator(_split_region),
    WithJsonSchema({"type": "string", "examples": ["0.1,0.2,0.5,0.5"]}),
    Field(description="x,y,width,height of a part of the upright image, as fractions of its size"),
]
FindItems = Annotated[bool, Field(description="also tell the regions of all items in the image, as `regions`")]
Text = Annotated[str, StringConstraints(max_length=2000)]
Attributes = dict[Annotated[str, StringConstraints(min_length=1, max_length=200)], Text]
FilterText = Annotated[str, StringConstraints(pattern="^[^=]+=", max_length=2201)]
FilterTexts = Annotated[
    list[FilterText],
    Field(max_length=MAX_FILTERS, description="`key=value`: an attribute value that results must have"),
]


class Paging(BaseModel):
    """How the catalogue is ranked, and which part of the ranking is asked for."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    k: int = Field(DEFAULT_K, ge=1, le=MAX_K, description="how many results")
    offset: int = Field(0, ge=0, description=f"how many results to skip; offset + k is at most {MAX_DEPTH}")
    rerank: Rerank = Field(
        "none",
        description="second stage: `expand` searches again with the query averaged with its nearest items, "
        "`reciprocal` re-orders the first hits by mutual neighbours; scores stay similarities to the query",
    )

    @model_validator(mode="after")
    def _within_depth(self) -> Self:
        if self.offset + self.k > MAX_DEPTH:
            raise ValueError(f"offset + k is {self.offset + self.k}; the limit is {MAX_DEPTH}")
        return self


class SearchRequest(Paging):
    """A search by exactly one of an item, a vector and an image."""

    item_id: str | None = Field(None, min_length=1, max_length=MAX_ITEM_ID)
    vector: list[float] | None = Field(None, min_length=1, max_length=MAX_DIM)
    image_base64: Base64Image | None = Field(None, description="an image file's bytes")
    filter: Attributes = Field(
        default_factory=dict, max_length=MAX_FILTERS, description="attribute values that results must have"
    )
    region: RegionValue | None = None
    find_items: FindItems = False

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        given = [name for name in ("item_id", "vector", "image_base64") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of item_id, vector and image_base64; found {found}")
        if self.find_items and self.image_base64 is None:
            raise ValueError(
                "find_items applies to uploaded images only; leave it out when searching by item or vector"
            )
        if self.region is not None and self.image_base64 is None:
            raise ValueError("region is a part of an uploaded image; leave it out when searching by item or vector")
        return self


class SearchForm(Paging):
    """A search by an uploaded file."""

    image: FileBytes = Field(description="an image file")
    filter: FilterTexts = Field(default_factory=list)
    region: RegionText | None = None
    find_items: FindItems = False


class SimilarQuery(Paging):
    """A search for more like an item."""

    filter: FilterTexts = Field(default_factory=list)


class ItemRequest(BaseModel):
    """An item with all that it shall have: what it had before is replaced."""

    model_config = ConfigDict(extra="forbid")

    title: Text | None = None
    attributes: Attributes = Field(default_factory=dict)
    images_base64: list[Base64Image] = Field(min_length=1, max_length=MAX_IMAGES, description="image files' bytes")


class ItemForm(BaseModel):
    """An item as a form: `image` may be repeated."""

    model_config = ConfigDict(extra="forbid")

    title: Text | None = None
    attributes: Json[Attributes] = Field(default_factory=dict, description="a JSON object of texts")
    image: list[FileBytes] = Field(min_length=1, max_length=MAX_IMAGES, description="image files")


class SearchResult(BaseModel):
    """One similar item, by its best image."""

    item_id: str
    score: float = Field(description="cosine similarity, or minus the Euclidean distance; larger is more similar")
    probability: float | None = Field(description="calibrated probability that it is the same product, where known")
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
    """What of the query image was searched with."""

    region: RegionValue
    chosen_by: ChosenBy = Field(
        description="`request`: the region that was asked for; `encoder`: where it found the item; `nobody`: all of it"
    )
    confidence: float | None = Field(description="that the region holds the item, 0 to 1; null unless `encoder` chose")

    @classmethod
    def of(cls, used: Used) -> Self:
        return cls(region=_rounded(used.region), chosen_by=used.chosen_by, confidence=used.confidence)


class FoundRegion(BaseModel):
    """An item in the query image; send `region` to search with it alone."""

    region: RegionValue
    confidence: float = Field(
        description="Finder's expected overlap (IoU) of its mask with the items, 0 to 1; "
        "equal for items found in one look."
    )

    @classmethod
    def of(cls, found: FoundItem) -> Self:
        return cls(region=_rounded(found.region), confidence=found.confidence)


def _rounded(region: Region) -> tuple[float, float, float, float]:
    x, y, width, height = (round(value, 4) for value in (region.x, region.y, region.width, region.height))
    return x, y, width, height


class SearchResponse(BaseModel):
    """A part of the ranking; `total` items pass the filter."""

    collection: str
    generation: int
    encoder_id: str
    k: int
    offset: int
    total: int
    took_ms: float
    used: UsedRegion | None = Field(description="of the query image; null in a search by item or by vector")
    regions: list[FoundRegion] | None = Field(
        description="of all items in the query image, the largest first; null unless `find_items` asked for them"
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
            used=None if page.used is None else UsedRegion.of(page.used),
            regions=None if page.regions is None else [FoundRegion.of(found) for found in page.regions],
            results=[SearchResult.of(page.collection, hit) for hit in page.results],
        )


class ItemImage(BaseModel):
    """One image of an item; `reason` says why a rejected one cannot be searched."""

    image_id: int
    image_url: str
    sha256: str | None
    width: int | None
    height: int | None
    status: str
    reason: str | None

    @classmethod
    def of(cls, collection: str, image: ImageRecord) -> Self:
        return cls(
            image_id=image.image_id,
            image_url=image_url(collection, image.image_id),
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            status=image.status,
            reason=image.reason,
        )


class ItemResponse(BaseModel):
    """An item as the catalogue has it."""

    collection: str
    item_id: str
    title: str | None
    attributes: dict[str, str]
    images: list[ItemImage]

    @classmethod
    def of(cls, collection: str, item: ItemRecord) -> Self:
        images = [ItemImage.of(collection, image) for image in item.images]
        return cls(
            collection=collection, item_id=item.item_id, title=item.title, attributes=item.attributes, images=images
        )


class CollectionSummary(BaseModel):
    """A collection and what it holds; `generation` is the active one's number."""

    name: str
    items: int
    images: int
    rejected: int
    generation: int | None
    encoder_id: str | None

    @classmethod
    def of(cls, record: CollectionRecord) -> Self:
        return cls(
            name=record.name,
            items=record.items,
            images=record.images,
            rejected=record.rejected,
            generation=record.generation,
            encoder_id=record.encoder_id,
        )


class CollectionList(BaseModel):
    collections: list[CollectionSummary]


class FacetValue(BaseModel):
    value: str
    count: int


class CollectionDetail(CollectionSummary):
    """A collection with its attributes' most frequent values, for filters."""

    facets: dict[str, list[FacetValue]]


class Encoder(BaseModel):
    encoder_id: str
    family: str
    dim: int
    metric: str
    trained_from: str = Field(description="`label-free: ...`, or whose labels; `not stated` without either")
    config: dict[str, Any]
    card: dict[str, Any]

    @classmethod
    def of(cls, record: EncoderRecord) -> Self:
        return cls(
            encoder_id=record.encoder_id,
            family=record.family,
            dim=record.dim,
            metric=record.metric,
            trained_from=record.trained_from,
            config=record.config,
            card=record.card,
        )


class EncoderList(BaseModel):
    encoders: list[Encoder]


class Generation(BaseModel):
    """An immutable index of a collection."""

    collection: str
    number: int
    encoder_id: str
    status: str
    count: int
    dim: int
    metric: str
    factory: str
    recall_at_10: float
    created_at: datetime
    activated_at: datetime | None

    @classmethod
    def of(cls, record: GenerationRecord) -> Self:
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class GenerationList(BaseModel):
    generations: list[Generation]


class Limits(BaseModel):
    """What the server refuses to exceed, so that a page can say so before it uploads."""

    max_upload_bytes: int
    max_pixels: int
    max_k: int = MAX_K
    max_depth: int = MAX_DEPTH
    max_images_per_item: int = MAX_IMAGES


class Health(BaseModel):
    status: str


class CollectionState(BaseModel):
    collection: str
    ready: bool
    generation: int | None
    reason: str | None


class Readiness(BaseModel):
    status: str
    collections: list[CollectionState]


def image_url(collection: str, image_id: int) -> str:
    return f"/v1/collections/{quote(collection, safe='')}/images/{image_id}"
