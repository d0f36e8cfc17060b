"""Load: what the server cannot work on it refuses at once, and probes wait for nobody."""

from __future__ import annotations

import io
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from PIL import Image

from indexer.decoding import MemoryBudget
from service.admission import Admission
from service.app import create_app
from service.body_limits import BodyLimit
from service.settings import Settings
from tests.service.conftest import assert_problem, running

SEARCH = "/v1/collections/shop/search"
PROBES = ("/healthz", "/readyz", "/metrics")
M = TypeVar("M", Admission, BodyLimit)


def layer_of(app: FastAPI, kind: type[M]) -> M:
    layer: Any = app.middleware_stack
    while not isinstance(layer, kind):
        layer = layer.app
    return layer


def admission_of(app: FastAPI) -> Admission:
    return layer_of(app, Admission)


@contextmanager
def ready_server(home: Path, **settings: int) -> Iterator[tuple[FastAPI, httpx.Client]]:
    app = create_app(Settings(home=home, query_log=0, **settings))  # type: ignore[arg-type]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    with running(app) as url, httpx.Client(base_url=url, timeout=30, limits=limits) as client:
        wait_for(lambda: client.get("/readyz").status_code == 200)
        yield app, client


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def png() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "navy").save(buffer, "PNG")
    return {"image": buffer.getvalue()}


def assert_refused_at_once(client: httpx.Client, method: str, path: str) -> None:
    began = time.perf_counter()
    response = client.request(method, path, files=png())
    assert time.perf_counter() - began < 0.5  # 0.1 on a machine that does nothing else
    assert assert_problem(response, 503)["type"].endswith(":overloaded")
    assert response.headers["retry-after"] == "1"


@contextmanager
def no_memory(memory: MemoryBudget) -> Iterator[None]:
    """Searches by image wait in their threads meanwhile."""
    memory._patience = 20
    with memory.reserve(memory.limit):
        yield


def test_searches_beyond_the_queue_are_refused_and_nothing_else_waits(indexed_home: Path) -> None:
    with ready_server(indexed_home, request_threads=2, request_queue=3) as (app, client), ThreadPoolExecutor(5) as pool:
        lane = admission_of(app).search
        with no_memory(app.state.service.memory):
            admitted = [pool.submit(client.post, SEARCH, files=png()) for _ in range(5)]
            wait_for(lambda: (lane.running, lane.waiting) == (2, 3))
            assert_refused_at_once(client, "POST", SEARCH)
            scraped = client.get("/metrics").text
            assert 'nitamono_requests_running{lane="search"} 2.0' in scraped
            assert 'nitamono_requests_waiting{lane="search"} 3.0' in scraped
            assert 'nitamono_requests_refused_total{lane="search"} 1.0' in scraped
            for path in (*PROBES, "/", "/v1/collections", "/v1/collections/shop/items/bag/0000"):
                began = time.perf_counter()
                assert client.get(path).status_code == 200
                assert time.perf_counter() - began < 1, path
        assert [response.result().status_code for response in admitted] == [200] * 5
        wait_for(lambda: lane.busy == 0)
        assert client.post(SEARCH, files=png()).status_code == 200


def test_probes_answer_at_once_under_200_connections(indexed_home: Path) -> None:
    with (
        ready_server(indexed_home, request_threads=8, request_queue=8) as (app, client),
        ThreadPoolExecutor(200) as pool,
    ):
        with no_memory(app.state.service.memory):
            answers = [pool.submit(client.post, SEARCH, files=png()) for _ in range(200)]
            wait_for(lambda: sum(answer.done() for answer in answers) >= 200 - 16)
            slowest = 0.0
            for path in PROBES * 5:
                began = time.perf_counter()
                assert client.get(path).status_code == 200
                slowest = max(slowest, time.perf_counter() - began)
        statuses = [answer.result().status_code for answer in answers]
        assert slowest < 0.5  # 0.1 on a machine that does nothing else
        assert 8 <= statuses.count(200) <= 16  # those that waited for 5 s were refused, too
        assert statuses.count(200) + statuses.count(503) == 200


def test_a_locked_database_fails_writes_after_a_while_and_holds_up_no_search(home_copy: Path) -> None:
    """Another process holds SQLite's write lock; ten PUTs once filled every thread, and a search waited 28.6 s."""
    with (
        ready_server(home_copy, write_wait=3) as (_, client),
        ThreadPoolExecutor(10) as pool,
        sqlite3.connect(home_copy / "catalogue.sqlite", isolation_level=None) as other,
    ):
        assert client.post(SEARCH, files=png()).status_code == 200
        other.execute("BEGIN IMMEDIATE")
        puts = [pool.submit(client.put, f"/v1/collections/shop/items/x{n}", files=png()) for n in range(10)]
        slowest = 0.0
        while not all(put.done() for put in puts):
            began = time.perf_counter()
            assert client.post(SEARCH, files=png()).status_code == 200
            slowest = max(slowest, time.perf_counter() - began)
        other.execute("ROLLBACK")
        assert slowest < 2.5  # a search that waited for writers would take 3 s
        for put in puts:
            response = put.result()
            assert_problem(response, 503)
            assert int(response.headers["retry-after"]) >= 1
        assert client.put("/v1/collections/shop/items/x", files=png()).status_code == 201


def test_bodies_that_arrive_at_once_share_a_limit(indexed_home: Path) -> None:
    megabyte = 2**20
    head = (
        f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {megabyte}\r\n\r\n"
    )
    refused = {"content": bytes(megabyte), "headers": {"content-type": "application/json"}}
    # JSON counts three times; the limit of all bodies is raised to one body of it.
    with (
        ready_server(indexed_home, max_upload_bytes=megabyte, max_bodies_bytes=megabyte) as (app, client),
        ExitStack() as stack,
    ):
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", client.base_url.port))) for _ in range(2)]
        for connection in slow:
            connection.sendall(head.encode() + bytes(megabyte // 2 - 1))
        wait_for(lambda: layer_of(app, BodyLimit).total == 2 * 3 * (megabyte // 2 - 1))
        response = client.post(SEARCH, **refused)
        assert assert_problem(response, 503)["type"].endswith(":overloaded")
        assert response.headers["retry-after"] == "1"
        for connection in slow:
            connection.close()
        wait_for(lambda: layer_of(app, BodyLimit).total == 0)
        assert_problem(client.post(SEARCH, **refused), 422, field="body")
