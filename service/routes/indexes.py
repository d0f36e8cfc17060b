"""Encoders and generations: what searches are answered with."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from indexer.generations import store
from service.auth import CanRead
from service.deps import ServiceDep
from service.schemas import Encoder, EncoderList, Generation, GenerationList

router = APIRouter(prefix="/v1", tags=["indexes"], dependencies=[CanRead])


@router.get("/encoders")
def list_encoders(service: ServiceDep) -> EncoderList:
    """The encoders of this catalogue."""
    return EncoderList(encoders=[Encoder.of(record) for record in service.home.catalogue.encoders.all()])


@router.get("/generations")
def list_generations(
    service: ServiceDep,
    collection: Annotated[str | None, Query(max_length=64, description="of this collection alone")] = None,
) -> GenerationList:
    """The index generations, the active and the earlier ones."""
    records = store.list_generations(service.home, collection)
    return GenerationList(generations=[Generation.of(record) for record in records])
