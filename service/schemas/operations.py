"""Liveness and readiness."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Health(BaseModel):
    status: str


class CollectionState(BaseModel):
    collection: str
    ready: bool
    generation: int | None
    reason: str | None = Field(description="Why it is not ready, or would not be after a restart.")


class Readiness(BaseModel):
    status: str
    read_only: bool = Field(description="Whether nothing can be stored, because the home is read-only.")
    collections: list[CollectionState]
