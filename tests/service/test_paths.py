"""Control characters in paths: `items/foo%0A` is not the item `foo`, on any route; and patterns match whole texts."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import Serve, assert_problem

ROOT = Path(__file__).parents[2]
VALUES = {"collection": "shop", "item_id": "bag/0000", "image_id": "1", "number": "1"}
CODES = ("%0A", "%0D", "%00", "%0D%0A", "%7F", "%C2%85")


def operations() -> list[tuple[str, str]]:
    """All routes, and the files of the page."""
    paths = create_app(Settings()).openapi()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [*found, ("GET", "/"), ("GET", "/static/app.js"), ("GET", "/openapi.json")]


def spoilt(path: str, code: str) -> set[str]:
    """The path with the code at its end and at the end of each parameter."""
    filled = path.format(**VALUES)
    inner = {path.replace(f"{{{name}}}", value + code).format(**VALUES) for name, value in VALUES.items()} - {filled}
    return {filled + code} | inner


@pytest.mark.parametrize("code", CODES)
def test_no_route_takes_a_path_with_a_control_character(code: str, client: httpx.Client) -> None:
    for method, path in operations():
        for url in spoilt(path, code):
            field = "item_id" if code in url.partition("/items/")[2] else "path"
            assert_problem(client.request(method, url), 422, field=field)


def test_deleting_with_a_line_feed_deletes_nothing(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    item = "/v1/collections/shop/items/bag/0000"
    for code in CODES:
        detail = assert_problem(client.delete(item + code), 422, field="item_id")["detail"]
        assert "control character" in detail
    assert client.get(item).status_code == 200


def test_patterns_are_matched_against_whole_texts() -> None:
    """`$` matches before a final line feed and `match` ignores what follows: `fullmatch` does neither."""
    loose = re.compile(r"""re\.(compile|match|search)\([^\n]*(?<!\\)\$["']|\bre\.match\(|\b[A-Z_]{3,}\.match\(""")
    files = [file for package in ("service", "indexer") for file in (ROOT / package).rglob("*.py")]
    found = [f"{file}: {line}" for file in files for line in file.read_text().splitlines() if loose.search(line)]
    assert len(files) > 50 and not found


@pytest.mark.parametrize("path", ["/v1/collections/shop%2F", "/v1/collections/shop/", "/v1/limits/", "/healthz/"])
def test_a_path_with_one_slash_more_does_not_exist(path: str, client: httpx.Client) -> None:
    """A redirect would send a client from `shop%2F`, the name `shop/`, to the collection `shop`."""
    answer = client.get(path)
    detail = assert_problem(answer, 404)["detail"]
    assert "does not exist" in detail and "/openapi.json lists all paths" in detail
    assert "location" not in answer.headers


def test_items_and_collections_with_slashes_are_not_redirected(client: httpx.Client) -> None:
    assert "no item 'bag/0000/'" in assert_problem(client.get("/v1/collections/shop/items/bag/0000%2F"), 404)["detail"]
    assert_problem(client.get("/v1/collections/shop/items/"), 422, field="item_id")
    assert_problem(client.get("/v1/collections/shop%2Fitems%2Fbag"), 404)


def test_405_names_all_methods_of_a_path(client: httpx.Client) -> None:
    expected = {
        "/v1/collections/shop/items/bag/0000": "DELETE, GET, PUT",
        "/v1/collections/shop/items/bag/0000/similar": "GET",
        "/v1/collections/shop/search": "POST",
        "/healthz": "GET",
        "/": "GET, HEAD",
    }
    for path, methods in expected.items():
        refused = client.request("PATCH", path)
        assert refused.headers["allow"] == methods
        assert f"use {methods}" in assert_problem(refused, 405)["detail"]


def test_writing_to_the_address_of_similar_items_stores_nothing(serve: Serve, home_copy: Path, photo: bytes) -> None:
    """`PUT items/x/similar` would store the item `x/similar`, which `GET` of the same address does not show."""
    client = serve(home_copy)
    address = "/v1/collections/shop/items/bag/0000/similar"
    assert_problem(client.put(address, files={"image": photo}), 405)
    assert_problem(client.delete(address), 405)
    assert client.get(address).status_code == 200
    assert_problem(client.get("/v1/collections/shop/items/bag%2F0000%2Fsimilar"), 404)
