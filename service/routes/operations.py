"""Liveness, readiness and metrics, for operators."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.requests import Request

from service.auth import CanObserve, Credentials, may_observe
from service.deps import ServiceDep
from service.errors import NotReadyError
from service.metrics import CONTENT_TYPE
from service.schemas.operations import CollectionState, Health, Readiness

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Health:
    """Report that the server is alive."""
    # Runs outside the thread pool, so that it answers even when all threads are busy.
    return Health(status="ok")


@router.get("/readyz")
async def readyz(service: ServiceDep, credentials: Credentials, request: Request) -> Readiness:
    """Report which collections can be searched; 503 if none can. Once keys exist, naming collections needs one."""
    may_see = await service.readiness.in_probe(lambda: may_observe(service, credentials, request))
    try:
        known = await service.readiness.require()
    except NotReadyError:
        if may_see:
            raise
        raise NotReadyError("no collection can be searched; send an API key with read access for details") from None
    read_only = service.home.catalogue.database.is_read_only
    if not may_see:
        return Readiness(status="ready", read_only=read_only, collections=[])
    states = [
        CollectionState(
            collection=entry.collection, ready=entry.ready, generation=entry.generation, reason=entry.reason
        )
        for entry in known
    ]
    return Readiness(status="ready", read_only=read_only, collections=states)


@router.get(
    "/metrics",
    dependencies=[CanObserve],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text format"}},
)
def metrics(service: ServiceDep) -> Response:
    """Return metrics for Prometheus."""
    known = service.home.catalogue.collections.active()
    service.metrics.set_generations((name, number) for name, number in known if number is not None)
    service.metrics.set_damaged((entry.collection, entry.is_damaged) for entry in service.readiness.known)
    return Response(service.metrics.render() + service.home_metrics.render(), headers={"Content-Type": CONTENT_TYPE})
