"""Limits of the server."""

from __future__ import annotations

from fastapi import APIRouter

from service.auth import CanRead
from service.deps import ServiceDep
from service.schemas.limits import Limits

router = APIRouter(prefix="/v1", tags=["limits"], dependencies=[CanRead])


@router.get("/limits")
def show_limits(service: ServiceDep) -> Limits:
    """Show the server's limits."""
    settings = service.settings
    return Limits(
        max_upload_bytes=settings.max_upload_bytes,
        max_pixels=settings.max_pixels,
        max_decode_bytes=settings.max_decode_bytes,
    )
