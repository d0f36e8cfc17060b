"""Liveness and readiness."""

from __future__ import annotations

from pydantic import BaseModel


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
