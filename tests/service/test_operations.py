"""What operators rely on: health, readiness, metrics, logs, many requests at once."""

from __future__ import annotations

import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from indexer.ingest.repair import repair
from indexer.search.searcher import Searcher
from service.errors import NotReadyError
from service.logs import JsonFormatter
from service.readiness import Readiness
from tests.conftest import write_photos
from tests.service.conftest import ITEMS, Serve, assert_problem


def test_an_empty_home_lives_but_is_not_ready_until_something_is_indexed(
    serve: Serve, tmp_path: Path, encoder_dir: Path
) -> None:
    home_path = tmp_path / "home"
    client = serve(home_path)
    assert client.get("/healthz").json() == {"status": "ok"}
    refused = client.get("/readyz")
    assert "nitamono index" in assert_problem(refused, 503)["detail"]
    assert refused.headers["retry-after"] == "5"
    with Home.open(home_path) as home:
        index_source(home, "first", write_photos(tmp_path / "photos", 6), encoder_ref=str(encoder_dir), processes=0)
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["collections"] == [{"collection": "first", "ready": True, "generation": 1, "reason": None}]


def test_a_server_that_is_still_loading_does_not_say_that_there_is_nothing(home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        searcher = Searcher(home)
        readiness = Readiness(home, searcher)
        with readiness._lock, pytest.raises(NotReadyError, match="being loaded"):  # another thread loads for long
            anyio.run(readiness.require)
        assert [entry.ready for entry in anyio.run(readiness.require)] == [True]


def test_a_collection_without_an_index_does_not_make_the_others_unready(
    serve: Serve, home_copy: Path, photo: bytes
) -> None:
    with Home.open(home_copy) as home:
        home.catalogue.ensure_collection("empty")
    client = serve(home_copy)
    # Until the first collection is loaded, in the background, the answer is 503.
    answers = (client.get("/readyz") for _ in range(1000))
    document = next(answer.json() for answer in answers if answer.status_code == 200)
    states = {entry["collection"]: entry for entry in document["collections"]}
    assert (states["shop"]["ready"], states["empty"]["ready"]) == (True, False)
    assert "nitamono index" in states["empty"]["reason"]
    assert_problem(client.post("/v1/collections/empty/search", files={"image": photo}), 404)


def test_a_new_generation_answers_without_a_restart(
    serve: Serve, home_copy: Path, shop: Path, other_encoder_dir: Path, photo: bytes
) -> None:
    client = serve(home_copy)
    search = {"files": {"image": photo}, "data": {"k": "3"}}
    before = client.post("/v1/collections/shop/search", **search).json()  # type: ignore[arg-type]
    with Home.open(home_copy) as home:
        index_source(home, "shop", shop, encoder_ref=str(other_encoder_dir), processes=0)
    after = client.post("/v1/collections/shop/search", **search).json()  # type: ignore[arg-type]
    assert (before["generation"], after["generation"]) == (1, 2)
    assert before["encoder_id"] != after["encoder_id"]
    assert client.get("/readyz").json()["collections"][0]["generation"] == 2
    assert 'nitamono_generation{collection="shop"} 2.0' in client.get("/metrics").text


def sample(text: str, name: str, **labels: str) -> float:
    """The value of one sample in Prometheus' text."""
    for line in text.splitlines():
        found = re.fullmatch(re.escape(name) + r"\{(.*)\} (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1])) == labels:
            return float(found[2])
    raise AssertionError(f"{name} {labels} is not in\n{text}")


def test_metrics_count_requests_by_route_and_status(serve: Serve, indexed_home: Path, photo: bytes) -> None:
    client = serve(indexed_home)
    for _ in range(3):
        client.post("/v1/collections/shop/search", files={"image": photo})
    client.post("/v1/collections/shop/search", files={"image": b"x"})
    client.get("/v1/collections/shop/items/bag/0000")
    client.get("/some/where/else")
    client.request("BREW", "/v1/collections")
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = response.text
    search = {"method": "POST", "route": "/v1/collections/{collection}/search"}
    item = {"method": "GET", "route": "/v1/collections/{collection}/items/{item_id:path}"}
    assert sample(text, "nitamono_http_requests_total", **search, status="200") == 3
    assert sample(text, "nitamono_http_requests_total", **search, status="422") == 1
    assert sample(text, "nitamono_http_request_seconds_count", **search, status="200") == 3
    assert sample(text, "nitamono_http_requests_total", **item, status="200") == 1
    assert sample(text, "nitamono_http_requests_total", method="GET", route="other", status="404") == 1
    assert sample(text, "nitamono_stage_seconds_count", stage="search") == 4
    assert sample(text, "nitamono_stage_seconds_count", stage="encode") == 3
    encode, search_seconds = (sample(text, "nitamono_stage_seconds_sum", stage=s) for s in ("encode", "search"))
    assert 0 < encode < search_seconds
    assert "BREW" not in text and "/some/where/else" not in text


def test_the_access_log_is_one_object_per_request(
    serve: Serve, indexed_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(indexed_home)
    with caplog.at_level(logging.INFO, logger="nitamono.access"):
        response = client.get("/v1/collections/shop", headers={"X-Request-ID": "order-17"})
        client.get("/healthz", headers={"X-Request-ID": "bad id\twith spaces"})
    assert response.headers["x-request-id"] == "order-17"
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.msg == "request"]
    by_path: dict[str, dict[str, Any]] = {line["path"]: line for line in lines}
    line = by_path["/v1/collections/shop"]
    assert (line["request_id"], line["method"], line["status"]) == ("order-17", "GET", 200)
    assert line["route"] == "/v1/collections/{collection}"
    assert line["bytes"] == len(response.content)
    assert line["ms"] > 0
    assert re.fullmatch("[0-9a-f]{32}", by_path["/healthz"]["request_id"])


def test_every_answer_has_the_security_headers(client: httpx.Client) -> None:
    for path in ("/", "/static/app.js", "/v1/collections", "/nowhere", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_many_threads_get_the_answers_of_one(client: httpx.Client, shop_url: str, photo: bytes) -> None:
    search = "/v1/collections/shop/search"

    def ask(number: int) -> tuple[int, list[str]]:
        offset = number % 5
        with httpx.Client(base_url=shop_url, timeout=30) as own:
            answer = own.post(search, files={"image": photo}, data={"k": "5", "offset": str(offset)}).json()
        return offset, [hit["item_id"] for hit in answer["results"]]

    whole = client.post(search, files={"image": photo}, data={"k": str(ITEMS)}).json()["results"]
    ranking = [hit["item_id"] for hit in whole]
    with ThreadPoolExecutor(16) as pool:
        for offset, found in pool.map(ask, range(96)):
            assert found == ranking[offset : offset + 5]


def test_writers_and_readers_at_once_lose_nothing(serve: Serve, home_copy: Path, photo: bytes) -> None:
    client = serve(home_copy)
    url = str(client.base_url)

    def write_then_read(number: int) -> bool:
        with httpx.Client(base_url=url, timeout=30) as own:
            path = f"/v1/collections/shop/items/thread/{number}"
            assert own.put(path, files={"image": photo}).status_code == 201
            answer = own.post("/v1/collections/shop/search", files={"image": photo}, data={"k": "100"}).json()
            return f"thread/{number}" in [hit["item_id"] for hit in answer["results"]]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(write_then_read, range(16)))
    assert client.get("/v1/collections/shop").json()["items"] == ITEMS + 16


def test_a_damaged_index_is_not_ready_and_not_searched(serve: Serve, home_copy: Path, shop: Path, photo: bytes) -> None:
    with Home.open(home_copy) as home:
        index_file = home.generation_directory("shop", 1) / "index.faiss"
    data = bytearray(index_file.read_bytes())
    data[-9] ^= 1  # inside a vector: FAISS reads the file
    index_file.write_bytes(bytes(data))
    client = serve(home_copy)
    answers = (client.get("/readyz") for _ in range(1000))
    # Until the collection is loaded, in the background, the answer is 503 without a collection.
    assert "damaged" in next(d for a in answers if "shop" in (d := assert_problem(a, 503)["detail"]))
    refused = client.post("/v1/collections/shop/search", files={"image": photo})
    assert assert_problem(refused, 503)["type"] == "urn:nitamono:problem:damaged"
    with Home.open(home_copy) as home:
        index_source(home, "shop", shop, processes=0)
    assert client.post("/v1/collections/shop/search", files={"image": photo}).status_code == 200
    assert client.get("/readyz").json()["collections"][0]["generation"] == 2


def test_a_damaged_index_is_not_served_until_it_is_repaired(serve: Serve, home_copy: Path, photo: bytes) -> None:
    with Home.open(home_copy) as home:
        index = home.generation_directory("shop", 1) / "index.faiss"
        data = bytearray(index.read_bytes())
        data[-400:] = bytes(byte ^ 0x55 for byte in data[-400:])
        index.write_bytes(data)
        client = serve(home_copy)
        assert "nitamono repair" in assert_problem(client.get("/readyz"), 503)["detail"]
        refused = assert_problem(client.post("/v1/collections/shop/search", files={"image": photo}), 503)
        assert (refused["type"], "/" in refused["detail"]) == ("urn:nitamono:problem:damaged", False)
        assert repair(home).rebuilt == {"shop": 2}
    assert client.post("/v1/collections/shop/search", files={"image": photo}).json()["generation"] == 2
    assert client.get("/readyz").status_code == 200
