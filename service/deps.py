"""Dependencies of the routes: the open service and the path parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Path
from starlette.requests import Request

from service.metrics import Metrics
from service.schemas.fields import NO_CONTROLS, ItemIdText
from service.settings import Settings
from training.data.decode import ImageLimits

if TYPE_CHECKING:
    from indexer.catalogue.home import Home
    from indexer.decoding import MemoryBudget
    from indexer.search.query_log import QueryLog
    from indexer.search.searcher import Searcher
    from service.folding import Folding
    from service.home_metrics import HomeMetrics
    from service.readiness import Readiness
    from service.thumbnails import Thumbnails


@dataclass(frozen=True)
class Service:
    """What the app keeps open while it runs."""

    settings: Settings
    home: Home
    searcher: Searcher
    readiness: Readiness
    metrics: Metrics
    home_metrics: HomeMetrics
    limits: ImageLimits
    memory: MemoryBudget
    thumbnails: Thumbnails
    query_log: QueryLog | None
    folding: Folding


async def get_service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
CollectionName = Annotated[str, Path(min_length=1, max_length=64, description="Collection name."), NO_CONTROLS]
ItemId = Annotated[ItemIdText, Path(description="Item id; may contain slashes.", examples=["dress/1.jpg"])]
