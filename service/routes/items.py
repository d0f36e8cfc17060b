"""Storing, showing and deleting an item."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from indexer.ingest.items import delete_item, get_item, put_item
from service.auth import CanRead, CanWrite, StillCanWrite
from service.bodies import Body, read_item
from service.deps import CollectionName, ItemId, ServiceDep
from service.openapi import two_bodies
from service.paths import asks_for_similar
from service.schemas.items import ItemForm, ItemRequest, ItemResponse


class ItemRoute(APIRoute):
    """A route of an item; see `asks_for_similar`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if asks_for_similar(scope) else super().matches(scope)


router = APIRouter(prefix="/v1/collections/{collection}/items", tags=["items"], route_class=ItemRoute)


@router.put(
    "/{item_id:path}",
    dependencies=[CanWrite],
    openapi_extra=two_bodies(ItemForm, ItemRequest),
    responses={201: {"model": ItemResponse, "description": "Item created"}},
)
def store_item(
    collection: CollectionName,
    item_id: ItemId,
    body: Body,
    still_allowed: StillCanWrite,
    service: ServiceDep,
    response: Response,
) -> ItemResponse:
    """Store an item, replacing one with the same id; it is durable and searchable when the request returns."""
    still_allowed()
    item = read_item(body)
    record, created = put_item(
        service.home,
        service.searcher,
        collection,
        item_id,
        title=item.title,
        attributes=item.attributes,
        images=item.images,
    )
    if created:
        response.status_code = 201
        response.headers["Location"] = f"/v1/collections/{quote(collection, safe='')}/items/{quote(item_id, safe='')}"
    return ItemResponse.of(collection, record)


@router.get("/{item_id:path}", dependencies=[CanRead])
def show_item(collection: CollectionName, item_id: ItemId, service: ServiceDep) -> ItemResponse:
    """Show an item."""
    return ItemResponse.of(collection, get_item(service.home, collection, item_id))


@router.delete("/{item_id:path}", dependencies=[CanWrite], status_code=204)
def remove_item(collection: CollectionName, item_id: ItemId, service: ServiceDep) -> None:
    """Delete an item; it no longer appears in searches when the request returns."""
    delete_item(service.home, collection, item_id)
