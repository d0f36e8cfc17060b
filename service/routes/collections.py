"""Collections and the images of their items."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response

from indexer.catalogue.home import Home
from indexer.catalogue.records import CollectionRecord
from indexer.errors import NotFoundError
from indexer.ingest.items import image_file
from service.auth import CanRead
from service.deps import CollectionName, ServiceDep
from service.schemas.collections import CollectionDetail, CollectionList, CollectionSummary, FacetValue
from service.thumbnails import MAX_WIDTH

DEFAULT_WIDTH = 480

router = APIRouter(prefix="/v1", tags=["collections"], dependencies=[CanRead])


@router.get("/collections")
def list_collections(service: ServiceDep) -> CollectionList:
    """List collections by name."""
    records = service.home.catalogue.collections.all()
    return CollectionList(collections=[CollectionSummary.of(record) for record in records])


@router.get("/collections/{collection}")
def show_collection(collection: CollectionName, service: ServiceDep) -> CollectionDetail:
    """Show a collection and the attribute values that its items can be filtered by."""
    found = service.home.catalogue.attributes.facets(collection)
    facets = {name: [FacetValue(value=value, count=count) for value, count in values] for name, values in found.items()}
    summary = CollectionSummary.of(_record(service.home, collection))
    return CollectionDetail(**summary.model_dump(), facets=facets)


@router.get(
    "/collections/{collection}/images/{image_id}",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "JPEG image"}, 304: {"description": "Not modified"}},
)
def show_image(
    collection: CollectionName,
    image_id: Annotated[int, Path(ge=1, le=2**63 - 1)],
    service: ServiceDep,
    width: Annotated[int, Query(ge=16, le=MAX_WIDTH, description="Maximum width in pixels.")] = DEFAULT_WIDTH,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Return an image of an item as a JPEG, scaled down if necessary but never up."""
    path = image_file(service.home, collection, image_id)
    etag = _etag(service.thumbnails.digest(path), width)
    visibility = "private" if service.home.catalogue.keys.exist() else "public"
    headers = {"ETag": etag, "Cache-Control": f"{visibility}, max-age=300", "Vary": "Authorization"}
    if if_none_match is not None and etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    found = service.thumbnails.get(path, width)
    return Response(found.jpeg, media_type="image/jpeg", headers={**headers, "ETag": _etag(found.sha256, width)})


def _etag(sha256: str, width: int) -> str:
    return f'"{sha256[:32]}-{width}"'


def _record(home: Home, collection: str) -> CollectionRecord:
    for record in home.catalogue.collections.all():
        if record.name == collection:
            return record
    raise NotFoundError(f"no collection {collection!r}")
