"""The FastAPI application; nothing is opened before its lifespan starts."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI

from indexer.catalogue.home import Home
from indexer.search.query_log import QueryLog
from service.deps import Service
from service.guards import HostCheck, PathCheck
from service.metrics import Metrics
from service.middleware import BodyLimit, RequestContext
from service.openapi import PROBLEM_RESPONSE, openapi_of
from service.problems import add_problem_handlers
from service.readiness import Readiness
from service.routes import collections, encoders, generations, items, limits, operations, page, search
from service.settings import Settings, load_settings
from service.timing import TimedSearcher
from training.data.decode import ImageLimits


def create_app(settings: Settings) -> FastAPI:
    """Create the app."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.request_threads
        service = await anyio.to_thread.run_sync(open_service, settings, metrics)
        app.state.service = service
        warming = service.readiness.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(close_service, service, warming)

    app = FastAPI(
        title="Nitamono",
        summary="Visual-similarity search for product catalogues",
        version=importlib.metadata.version("nitamono"),
        lifespan=lifespan,
        # The interactive docs load scripts from other hosts; /openapi.json remains.
        docs_url=None,
        redoc_url=None,
        responses=PROBLEM_RESPONSE,
        generate_unique_id_function=lambda route: route.name,
    )
    app.openapi = openapi_of(app)  # type: ignore[method-assign]
    app.add_middleware(BodyLimit, max_bytes=settings.max_upload_bytes)
    app.add_middleware(PathCheck)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(RequestContext, metrics=metrics)
    add_problem_handlers(app)
    # `/similar` must come before the items, whose path parameter would match it.
    app.include_router(search.similar_router)
    for module in (search, items, collections, limits, encoders, generations, operations, page):
        app.include_router(module.router)
    app.mount("/static", page.PageFiles(directory=page.WEB), name="static")
    return app


def create_app_from_environment() -> FastAPI:
    """The app factory of each server process."""
    return create_app(load_settings())


def open_service(settings: Settings, metrics: Metrics) -> Service:
    """Open the home and create its searcher."""
    home = Home.open(settings.home, database_url=settings.database_url, create=True)
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
    log = QueryLog(home.catalogue, settings.query_log) if settings.query_log else None
    searcher = TimedSearcher(
        home, metrics, device=settings.device, threads=settings.threads, limits=limits, query_log=log
    )
    return Service(settings, home, searcher, Readiness(home, searcher), metrics, limits, log)


def close_service(service: Service, warming: threading.Thread) -> None:
    """Wait until loading ends, then close what `open_service` opened."""
    warming.join()
    service.searcher.close()
    if service.query_log is not None:
        service.query_log.close()
    service.home.close()
