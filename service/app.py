"""The FastAPI application; nothing is opened before its lifespan starts."""

from __future__ import annotations

import asyncio
import importlib.metadata
import multiprocessing
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI

from indexer.catalogue.home import Home
from indexer.decoding import MemoryBudget
from indexer.search.query_log import QueryLog
from service.admission import Admission, threads_needed
from service.body_limits import BodyLimit
from service.connections import log_shortages
from service.deps import Service
from service.folding import Folding
from service.home_metrics import HomeMetrics
from service.host_names import parse_hosts
from service.hosts import AllowedHosts
from service.metrics import Metrics
from service.middleware import RequestContext
from service.openapi import openapi_of
from service.paths import PlainPaths
from service.problems import add_problem_handlers
from service.rate_limits import RateLimits
from service.readiness import Readiness
from service.routes import collections, drawings, encoders, generations, items, limits, operations, page, search
from service.settings import Settings, load_settings
from service.thumbnails import Thumbnails
from service.timing import TimedSearcher
from service.tracing import Tracing
from training.data.decode import ImageLimits


def create_app(settings: Settings) -> FastAPI:
    """Create the app."""
    tracing = Tracing()
    metrics = Metrics(tracing.span)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads_needed(settings)
        log_shortages(asyncio.get_running_loop())
        service = await anyio.to_thread.run_sync(open_service, settings, metrics)
        app.state.service = service
        service.readiness.start()
        service.folding.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(close_service, service)
            await anyio.to_thread.run_sync(tracing.close)

    app = FastAPI(
        title="Nitamono",
        summary="Visual-similarity search for product catalogues",
        version=importlib.metadata.version("nitamono"),
        lifespan=lifespan,
        # The interactive docs load scripts from other hosts; /openapi.json remains.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=tracing.config,
        generate_unique_id_function=lambda route: route.name,
    )
    app.openapi = openapi_of(app, public_read=settings.public_read)  # type: ignore[method-assign]
    app.add_middleware(Admission, settings=settings, metrics=metrics)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_upload_bytes,
        max_total=settings.max_bodies_bytes,
        seconds=settings.body_timeout,
    )
    app.add_middleware(PlainPaths)
    app.add_middleware(RateLimits, settings=settings)
    app.add_middleware(AllowedHosts, allowed=parse_hosts(settings.allowed_hosts))
    app.add_middleware(RequestContext, metrics=metrics)
    add_problem_handlers(app)
    # `/similar` must come before the items, whose path parameter would match it.
    app.include_router(search.similar_router)
    for module in (search, drawings, items, collections, limits, encoders, generations, operations, page):
        app.include_router(module.router)
    app.mount("/static", page.PageFiles(directory=page.WEB), name="static")
    return app


def create_app_from_environment() -> FastAPI:
    """The app factory of each server process."""
    end_with_parent()
    return create_app(load_settings())


def end_with_parent() -> None:
    """End this worker, as SIGTERM does, once the server that started it has been killed; nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is None:  # the only process
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def open_service(settings: Settings, metrics: Metrics) -> Service:
    """Open the home and create its searcher."""
    home = Home.open(
        settings.home,
        database_url=settings.database_url,
        vectors=settings.vectors,
        create=True,
        write_wait=settings.write_wait,
    )
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)
    log = QueryLog(home.catalogue, settings.query_log) if settings.query_log else None
    memory = MemoryBudget(settings.max_decode_bytes)
    searcher = TimedSearcher(
        home, metrics, device=settings.device, threads=settings.threads, limits=limits, memory=memory, query_log=log
    )
    thumbnails = Thumbnails(home.path / "thumbnails", settings.thumbnail_bytes, limits, memory)
    return Service(
        settings, home, searcher, Readiness(home, searcher), metrics, HomeMetrics(home), limits, memory, thumbnails,
        log, Folding(home, settings),
    )  # fmt: skip


def close_service(service: Service) -> None:
    """Close what `open_service` opened."""
    service.folding.stop()
    service.readiness.stop()
    service.searcher.close()
    if service.query_log is not None:
        service.query_log.close()
    service.home.close()
