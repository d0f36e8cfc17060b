"""Searching by an uploaded image, a vector or an item."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi import Query as QueryParameters
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from indexer.search.filters import parse_filters
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from service.auth import CanRead, StillCanRead
from service.bodies import JSON, Body, Query, read_query
from service.deps import CollectionName, ItemId, ServiceDep
from service.openapi import two_bodies
from service.paths import asks_for_similar
from service.schemas.search import SearchForm, SearchRequest, SearchResponse, SimilarQuery
from service.timing import stopwatch


class SimilarRoute(APIRoute):
    """A route for URLs that end in `/items/ITEM/similar` before decoding; see `asks_for_similar`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if asks_for_similar(scope) else (Match.NONE, {})


router = APIRouter(prefix="/v1/collections/{collection}", tags=["search"], dependencies=[CanRead])
similar_router = APIRouter(
    prefix="/v1/collections/{collection}", tags=["search"], dependencies=[CanRead], route_class=SimilarRoute
)


@router.post("/search", response_model=SearchResponse, openapi_extra=two_bodies(SearchForm, SearchRequest))
def search(collection: CollectionName, body: Body, still_allowed: StillCanRead, service: ServiceDep) -> Response:
    """Find the items most similar to an image, an item or a vector."""
    still_allowed()
    query = read_query(body)
    with stopwatch(service.metrics, "search") as watch:
        page = run(service.searcher, collection, query)
    # FastAPI would validate a model once more, in another thread.
    return Response(SearchResponse.of(page, watch.seconds).model_dump_json(), media_type=JSON)


@similar_router.get("/items/{item_id:path}/similar")
def similar_items(
    collection: CollectionName,
    item_id: ItemId,
    query: Annotated[SimilarQuery, QueryParameters()],
    service: ServiceDep,
) -> SearchResponse:
    """Find the items most similar to an item, excluding the item itself."""
    wanted = Query(query.k, query.offset, parse_filters(query.filter), item_id=item_id, rerank=query.rerank)
    with stopwatch(service.metrics, "search") as watch:
        page = run(service.searcher, collection, wanted)
    return SearchResponse.of(page, watch.seconds)


def run(searcher: Searcher, collection: str, query: Query) -> SearchPage:
    """Run a query of any kind."""
    paging: dict[str, Any] = {"k": query.k, "offset": query.offset, "filters": query.filters, "rerank": query.rerank}
    if query.image is not None:
        return searcher.search_image(
            collection, query.image, region=query.region, find_items=query.find_items, **paging
        )
    if query.item_id is not None:
        return searcher.search_item(collection, query.item_id, **paging)
    return searcher.search_vector(collection, query.vector or [], **paging)
