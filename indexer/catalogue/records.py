"""What the catalogue returns and stores: plain frozen records, no open cursors."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:  # the command line starts without NumPy
    import numpy as np
    from numpy.typing import NDArray

    from training.reference import EncoderDescription

ImageStatus = Literal["ok", "rejected"]
GenerationStatus = Literal["active", "retired", "removed"]
RetrainStatus = Literal["running", "promoted", "refused", "abandoned"]
Rerank = Literal["none", "expand", "reciprocal"]  # the second stage of a search
OVER_HTTP = "http:"  # source of the images that were written over HTTP; the others have an absolute path
ChangeKind = Literal["added", "updated", "described", "deleted", "rejected"]


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection and its counts; `generation` is the number of the active one."""

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
    status: ImageStatus
    reason: str | None


@dataclass(frozen=True, slots=True)
class ItemRecord:
    item_id: str
    title: str | None
    attributes: dict[str, str]
    images: list[ImageRecord]


@dataclass(frozen=True, slots=True)
class ItemSummary:
    """The part of an item that a search hit shows, and the URI of its image if that was asked for and exists."""

    item_id: str
    title: str | None
    attributes: dict[str, str]
    uri: str | None = None


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
        """What the encoder was trained from, according to its card."""
        from training.reference import trained_from  # imports NumPy, which the command line starts without

        return trained_from(self.card)

    @classmethod
    def of(cls, described: EncoderDescription) -> EncoderRecord:
        """The part of an encoder's description that the catalogue stores."""
        return cls(
            encoder_id=described.encoder_id,
            family=described.family,
            dim=described.dim,
            metric=described.metric,
            config=described.config,
            card=described.card,
        )


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """One immutable index; `watermark` is the last change that it includes."""

    collection: str
    number: int
    encoder_id: str
    status: GenerationStatus
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
    """An image or source row that could not be indexed, its place in the source, and the reason."""

    collection: str
    item_id: str | None
    image: str | None
    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoRecord:
    """A searchable photo as training reads it."""

    item_id: str
    uri: str
    sha256: str
    mask_uri: str | None
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """A run of `nitamono retrain`: its plan, and the decision with the figures behind it."""

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
    """An API key; its previous secret, if it was rotated, is valid until `previous_expires_at`."""

    name: str
    scope: str
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None
    rotated_at: datetime | None
    previous_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A secret of an API key that was not revoked: the present one, or the one that a rotation replaced."""

    name: str
    scope: str
    expires_at: datetime | None
    is_replaced: bool


class ImageState(NamedTuple):
    """The stored state of an image of an item, to tell whether its file has changed."""

    image_id: int
    sha256: str | None
    size: int | None
    mtime_ns: int | None
    status: ImageStatus
    mask_uri: str | None
    title: str | None
    attributes: dict[str, str]
    source: str | None
    has_vector: bool


class StoredImage(NamedTuple):
    """An image with its item, and the source that it belongs to.

    Args:
        source: None if it was indexed by a version that did not record sources, and its source was not indexed since.
    """

    image_id: int
    item_pk: int
    item_id: str
    uri: str
    sha256: str | None
    size: int | None
    status: ImageStatus
    source: str | None


@dataclass(frozen=True, slots=True)
class ImageWrite:
    """One image to store.

    Args:
        describes: write the item's title and attributes too; set for the first row of an item in a source.
        source: what the image belongs to; None keeps what is stored.
        moved_from: the stored image that this one is, at an earlier place or of an item with an earlier id.
        vector: `(dim,)`; None if the image is rejected or its vector is stored already.
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
    source: str | None = None
    moved_from: StoredImage | None = None
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """A searchable photo of an item with its vector `(dim,)` by one encoder; `created_at` is the item's."""

    item_pk: int
    item_id: str
    created_at: datetime
    uri: str
    sha256: str
    vector: NDArray[np.float32]


class StoredVectors(NamedTuple):
    """Vectors of searchable images by one encoder.

    Args:
        ids: `(n, 2)`, image_id and item key of each vector.
        sha256: `(n,)`, the content of each image.
        vectors: `(n, dim)`.
    """

    ids: NDArray[np.int64]
    sha256: list[str]
    vectors: NDArray[np.float32]


class RecentQuery(NamedTuple):
    """A query vector `(dim,)` and when it was searched with."""

    at: datetime
    vector: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchState:
    """What decides whether a loaded index is up to date; one cheap query per search.

    Args:
        calibrated_at: when the active encoder was calibrated; a change means that the calibration must be reloaded.
    """

    collection_id: int
    generation: int | None
    encoder_id: str | None
    watermark: int
    last_change: int
    calibrated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ActiveState(SearchState):
    """The state of a collection that has an active generation."""

    generation: int
    encoder_id: str
