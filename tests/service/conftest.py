"""A small shop with titles and attributes, and real servers for it on free ports."""

from __future__ import annotations

import csv
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from service.app import create_app
from service.serve import listen, server_config
from service.settings import Settings
from tests.conftest import COLOURS, draw_photo, write_photos
from tests.drawings import write_shapes

ITEMS = 30
CATEGORIES = ("bag", "hat", "mug")
Serve = Callable[..., httpx.Client]


def write_shop(folder: Path) -> Path:
    """A manifest of `ITEMS` items with titles, three categories and eight colours; the last item has two photos."""
    write_photos(folder, ITEMS + 1)
    manifest = folder / "shop.csv"
    with manifest.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "image", "title", "category", "colour"])
        for number in range(ITEMS):
            rows.writerow(_row(number, number))
        rows.writerow(_row(ITEMS - 1, ITEMS))
    return manifest


def _row(item: int, photo: int) -> list[str]:
    category, colour = CATEGORIES[item % len(CATEGORIES)], COLOURS[item % len(COLOURS)]
    path = f"{CATEGORIES[photo % len(CATEGORIES)]}/{photo:04d}.jpg"
    return [f"{category}/{item:04d}", path, f"{colour.title()} {category} no. {item}", category, colour]


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest; read only."""
    return write_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def indexed_home(tmp_path_factory: pytest.TempPathFactory, shop: Path, encoder_dir: Path) -> Path:
    """A home with the collection `shop`; read only."""
    path = tmp_path_factory.mktemp("service") / "home"
    with Home.open(path, create=True) as home:
        index_source(home, "shop", shop, encoder_ref=str(encoder_dir), processes=0)
    return path


@pytest.fixture
def home_copy(indexed_home: Path, tmp_path: Path) -> Path:
    """One that a test may write to."""
    ignored = shutil.ignore_patterns("thumbnails")  # of the server that all tests share
    return Path(shutil.copytree(indexed_home, tmp_path / "home", ignore=ignored))


@pytest.fixture(scope="session")
def drawn_home(tmp_path_factory: pytest.TempPathFactory, indexed_home: Path, sketch_encoder_dir: Path) -> Path:
    """A home with the collection `shapes` of 40 drawings, and `shop`; read only."""
    folder = tmp_path_factory.mktemp("drawn")
    path = Path(shutil.copytree(indexed_home, folder / "home"))
    with Home.open(path) as home:
        source = write_shapes(folder / "shapes", 40)
        index_source(home, "shapes", source, encoder_ref=str(sketch_encoder_dir), processes=0)
    return path


@pytest.fixture
def catalogue(home_copy: Path) -> Iterator[Catalogue]:
    with Home.open(home_copy) as home:
        yield home.catalogue


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def running(app: ASGIApp, **settings: Any) -> Iterator[str]:
    """An app under uvicorn, in a thread, with settings of the connections; yields its URL."""
    listener = listen("127.0.0.1", 0)
    config = server_config(app, Settings(**{"drain_seconds": 5, **settings}), log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket listens already, so the first request simply waits until the app is up.
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


def ready(url: str, times: int = 1) -> None:
    """Wait until a server has loaded a collection; `times` in a row, as each worker answers for itself."""
    for _ in range(times):
        while httpx.get(f"{url}/readyz", timeout=60).status_code != 200:
            time.sleep(0.05)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers with the settings given, and returns a client for each; without a log of queries, homes stay."""
    with ExitStack() as stack:

        def start(home: Path, **settings: Any) -> httpx.Client:
            url = stack.enter_context(running(create_app(Settings(**{"home": home, "query_log": 0, **settings}))))
            return stack.enter_context(httpx.Client(base_url=url, timeout=30))

        yield start


@pytest.fixture(scope="session")
def shop_url(indexed_home: Path) -> Iterator[str]:
    """A server of the read-only home, for all tests that only read."""
    with running(create_app(Settings(home=indexed_home, query_log=0))) as url:
        yield url


@pytest.fixture
def client(shop_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop_url, timeout=30) as opened:
        yield opened


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A photo that is not in the shop."""
    path = tmp_path_factory.mktemp("query") / "query.jpg"
    draw_photo(1003, (200, 160)).save(path, quality=92)
    return path.read_bytes()


def assert_problem(response: httpx.Response, status: int, *, field: str | None = None) -> dict[str, Any]:
    """The response is a problem document of this status; returns it."""
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert {"type", "title", "detail", "instance", "request_id"} <= document.keys()
    assert document["request_id"] == response.headers["x-request-id"]
    assert document.get("field") == field, document
    assert "Traceback" not in response.text
    return document
