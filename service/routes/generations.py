"""Generations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from indexer.generations import store
from indexer.ingest.promotion import activate
from service.auth import CanAdminister, CanRead, StillCanAdminister
from service.deps import CollectionName, ServiceDep
from service.schemas.generations import Activation, Generation, GenerationList

router = APIRouter(prefix="/v1", tags=["generations"], dependencies=[CanRead])


@router.get("/generations")
def list_generations(
    service: ServiceDep,
    collection: Annotated[str | None, Query(max_length=64, description="Name of the only collection to list.")] = None,
) -> GenerationList:
    """List generations, active and earlier ones."""
    records = store.list_generations(service.home, collection)
    return GenerationList(generations=[Generation.of(record) for record in records])


@router.put("/collections/{collection}/active-generation", dependencies=[CanAdminister])
def activate_generation(
    collection: CollectionName,
    activation: Annotated[Activation, Body()],
    still_allowed: StillCanAdminister,
    service: ServiceDep,
) -> Generation:
    """Verify and activate a kept generation, such as the previous one to roll back; needs admin access."""
    still_allowed()
    return Generation.of(activate(service.home, collection, activation.number))
