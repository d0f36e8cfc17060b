"""Generations."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from indexer.catalogue.records import GenerationRecord
from service.schemas.fields import Whole


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
        return cls.model_validate(asdict(record))


class Activation(BaseModel):
    """The generation to activate."""

    model_config = ConfigDict(extra="forbid", strict=True)

    number: Whole = Field(ge=1, le=2**31 - 1, description="Number of a generation that the collection keeps.")


class GenerationList(BaseModel):
    generations: list[Generation]
