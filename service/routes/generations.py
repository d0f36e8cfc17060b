"""Generations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from indexer.generations import store
from service.auth import CanRead
from service.deps import ServiceDep
from service.schemas.generations import Generation, GenerationList

router = APIRouter(prefix="/v1", tags=["generations"], dependencies=[CanRead])


@router.get("/generations")
def list_generations(
    service: ServiceDep,
    collection: Annotated[str | None, Query(max_length=64, description="Name of the only collection to list.")] = None,
) -> GenerationList:
    """List generations, active and earlier ones."""
    records = store.list_generations(service.home, collection)
    return GenerationList(generations=[Generation.of(record) for record in records])
