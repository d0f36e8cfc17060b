"""What the catalogue returns: plain frozen records, no open cursors."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from training.reference import EncoderDescription

ImageStatus = Literal["ok", "rejected"]
GenerationStatus = Literal["active", "retired", "removed"]
RetrainStatus = Literal["running", "promoted", "refused", "abandoned"]
Rerank = Literal["none", "expand", "reciprocal"]  # the second stage of a search
ChangeKind = Literal["added", "updated", "described", "deleted", "rejected"]


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection and what it holds; `generation` is the active one's number."""

    name: str
    items: int
    images: int
    rejected: int
    generation: int | None
    encoder_id: str | None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    image_id: int
    uri: str
    sha256: str | None
    width: int | None
    height: int | None
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class ItemRecord:
    item_id: str
    title: str | None
    attributes: dict[str, str]
    images: list[ImageRecord]


@dataclass(frozen=True, slots=True)
class ItemSummary:
    """What a search hit shows of an item."""

    item_id: str
    title: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    encoder_id: str
    family: str
    dim: int
    metric: str
    config: dict[str, Any]
    card: dict[str, Any]

    @property
    def trained_from(self) -> str:
        """What its card says that it learnt from."""
        from training.reference import trained_from  # brings NumPy, which the command line starts without

        return trained_from(self.card)

    @classmethod
    def of(cls, described: EncoderDescription) -> EncoderRecord:
        """What the catalogue keeps of an encoder."""
        return cls(*(getattr(described, name) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One immutable index; `watermark` is the last change that it includes."""

    collection: str
    number: int
    encoder_id: str
    status: str
    count: int
    dim: int
    metric: str
    factory: str
    recall_at_10: float
    watermark: int
    manifest_sha256: str
    created_at: datetime
    activated_at: datetime | None


@dataclass(frozen=True, slots=True)
class RejectRecord:
    """An image or a source row that was set aside, and why."""

    collection: str
    item_id: str | None
    image: str | None
    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """A searchable photo, as far as training needs to know it."""

    item_id: str
    uri: str
    sha256: str
    mask_uri: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """A run of `nitamono retrain`: what was asked for, and what was decided on which figures."""

    collection: str
    number: int
    status: RetrainStatus
    plan: dict[str, Any]
    decision: dict[str, Any] | None
    generation: int | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    name: str
    scope: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class ImageState:
    """What the catalogue knows of one image of one item, for telling whether its file has changed."""

    image_id: int
    sha256: str | None
    size: int | None
    mtime_ns: int | None
    status: str
    mask_uri: str | None
    title: str | None
    attributes: dict[str, str]
    has_vector: bool


@dataclass(frozen=True, slots=True)
class ImageWrite:
    """One image to store. `vector` is float32 bytes, or None where there is none (rejected) or it stands already.

    The item's title and attributes are written only where `describes` is set: the first of its rows in a source.
    """

    item_id: str
    uri: str
    kind: ChangeKind | None
    status: ImageStatus
    title: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    describes: bool = True
    mask_uri: str | None = None
    sha256: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    width: int | None = None
    height: int | None = None
    reason: str | None = None
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A searchable photo of an item with its vector by one encoder; `created_at` is the item's."""

    item_pk: int
    item_id: str
    created_at: datetime
    uri: str
    sha256: str
    vector: bytes


@dataclass(frozen=True, slots=True)
class SearchState:
    """What decides whether a loaded index is up to date; one cheap query per search.

    `calibrated_at` is of the active encoder's calibration, so that a new one is taken up too.
    """

    collection_id: int
    generation: int | None
    encoder_id: str | None
    watermark: int
    last_change: int
    calibrated_at: datetime | None = None
