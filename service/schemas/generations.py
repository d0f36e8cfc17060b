"""Generations."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Self

from pydantic import BaseModel

from indexer.catalogue.records import GenerationRecord


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


class GenerationList(BaseModel):
    generations: list[Generation]
