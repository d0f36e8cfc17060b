"""For operators: liveness, readiness, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.auth import CanRead
from service.deps import ServiceDep
from service.metrics import CONTENT_TYPE
from service.schemas import CollectionState, Health, Readiness

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the server lives."""
    # Not in the thread pool: a server whose threads are all at work is busy, not dead.
    return Health(status="ok")


@router.get("/readyz")
def readyz(service: ServiceDep) -> Readiness:
    """Which collections can be searched; 503 while none can."""
    known = service.readiness.require()
    states = [
        CollectionState(
            collection=entry.collection, ready=entry.ready, generation=entry.generation, reason=entry.reason
        )
        for entry in known
    ]
    return Readiness(status="ready", collections=states)


@router.get(
    "/metrics",
    dependencies=[CanRead],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text"}},
)
def metrics(service: ServiceDep) -> Response:
    """Counters for Prometheus."""
    active = [
        (record.name, record.generation)
        for record in service.home.catalogue.collections.all()
        if record.generation is not None
    ]
    service.metrics.set_generations(active)
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
