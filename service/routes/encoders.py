"""Encoders."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import CanRead
from service.deps import ServiceDep
from service.schemas.encoders import Encoder, EncoderList

router = APIRouter(prefix="/v1", tags=["encoders"], dependencies=[CanRead])


@router.get("/encoders")
def list_encoders(service: ServiceDep) -> EncoderList:
    """List the encoders of the catalogue."""
    return EncoderList(encoders=[Encoder.of(record) for record in service.home.catalogue.encoders.all()])
