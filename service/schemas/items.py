"""Items and their images."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, Json

from indexer.catalogue.records import ImageRecord, ItemRecord
from indexer.ingest.attributes import MAX_ATTRIBUTES, MAX_TOTAL
from indexer.ingest.items import MAX_IMAGES
from service.schemas.fields import OR_MISSING, Attributes, Base64Image, FileBytes, Text, image_url


class ItemRequest(BaseModel):
    """An item to store; it replaces an item with the same id completely."""

    model_config = ConfigDict(extra="forbid")

    title: Text | None = None
    attributes: Attributes = Field(
        default_factory=dict,
        description=f"At most {MAX_TOTAL} characters of names and values in all.",
        json_schema_extra={"maxProperties": MAX_ATTRIBUTES},
    )
    images_base64: list[Base64Image] = Field(
        min_length=1, max_length=MAX_IMAGES, description="Bytes of the image files, as base64."
    )


class ItemForm(BaseModel):
    """An item to store, as a form; `image` is repeatable."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[Text | None, OR_MISSING] = None
    attributes: Json[Attributes] = Field(
        default_factory=dict,
        description='JSON object whose values are strings, such as {"colour": "red"}; at most '
        f"{MAX_ATTRIBUTES} attributes, and {MAX_TOTAL} characters of names and values in all.",
    )
    image: list[FileBytes] = Field(min_length=1, max_length=MAX_IMAGES, description="Image files.")


class ItemImage(BaseModel):
    """An image of an item; `reason` explains why a rejected image cannot be searched."""

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
    """An item of the catalogue."""

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
