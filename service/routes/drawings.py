"""Drawings as the model of a collection draws them again."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service.auth import CanRead, StillCanRead
from service.bodies import JSON, Body, read_drawing
from service.deps import CollectionName, ServiceDep
from service.openapi import two_bodies
from service.schemas.drawings import DrawingForm, DrawingRequest, Redrawing
from service.timing import stopwatch

router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"], dependencies=[CanRead])


@router.post("/redraw", response_model=Redrawing, openapi_extra=two_bodies(DrawingForm, DrawingRequest))
def redraw(collection: CollectionName, body: Body, still_allowed: StillCanRead, service: ServiceDep) -> Response:
    """Draw a drawing again from what the collection's encoder keeps of it."""
    still_allowed()
    drawing = read_drawing(body)
    with stopwatch(service.metrics, "redraw") as watch:
        strokes = service.searcher.redraw(collection, drawing)
    found = Redrawing(
        collection=collection,
        strokes=[[(round(x, 1), round(y, 1)) for x, y in stroke.tolist()] for stroke in strokes],
        took_ms=round(watch.seconds * 1000, 2),
    )
    return Response(found.model_dump_json(), media_type=JSON)
