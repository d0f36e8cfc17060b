"""Collections and the values that their items can be filtered by."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from indexer.catalogue.records import CollectionRecord


class CollectionSummary(BaseModel):
    """A collection and what it contains."""

    name: str
    items: int
    images: int
    rejected: int
    generation: int | None = Field(description="Number of the active generation.")
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
    """A collection with the most frequent values of its attributes."""

    facets: dict[str, list[FacetValue]]
