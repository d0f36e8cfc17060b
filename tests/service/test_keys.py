"""API keys: their names, revocation during an upload, what is told without a key, and what admin access allows."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.catalogue import Catalogue
from indexer.catalogue.home import Home
from indexer.errors import IndexerError, InvalidRequestError
from service.auth import create_key
from service.commands.keys import _printable
from tests.service.conftest import Serve, assert_problem, bearer

BAD_NAMES = ("", " ", "a\nb", "a\x1b[2J", "a\u202eb", "x" * 65, "a\x85", "\ud800")
MALFORMED_URLS = (
    "user:SECRET@host/db",
    "postgresql//u:SECRET@h/d",
    "//u:SECRET@h",
    "postgresql://h:SECRET/d",
    "postgresql://user:p@ss:SECRET@db/x",
    "postgresql+psycopg://u:p@s/SECRET@db/x",
    "postgresql+psycopg://us/er:SECRET@h/d",
    "postgresql+nosuch://u:SECRET@h/d",
    "nosuch://u:SECRET@h/d",
    "postgresql://u:SECRET@[::1/d",
    "postgresql+psycopg://u:SECRET@127.0.0.1:99999999/d",
    "postgresql+psycopg://u:SECRET@127.0.0.1:1/d",
    "sqlite://u:SECRET@h/d",
)
ACTIVE = "/v1/collections/shop/active-generation"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_1_to_64_printable_characters(name: str, catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequestError, match="must be 1 to 64 printable characters"):
        create_key(catalogue, name, "read")
    assert not catalogue.keys.exist()
    assert _printable(name).isprintable()


@pytest.mark.parametrize("url", MALFORMED_URLS)
def test_no_message_shows_the_password_of_the_database(url: str, tmp_path: Path) -> None:
    with pytest.raises(IndexerError) as caught:
        Home.open(tmp_path / "home", database_url=url, create=True)
    assert "SECRET" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_revoked_during_an_upload_stores_nothing(
    serve: Serve, home_copy: Path, catalogue: Catalogue, photo: bytes
) -> None:
    client = serve(home_copy)
    key = create_key(catalogue, "till", "write")
    request = client.build_request("PUT", "/v1/collections/shop/items/new", files={"image": photo}, headers=bearer(key))
    body = request.read()
    head = f"PUT {request.url.path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in request.headers.items())
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=10) as connection:
        connection.sendall(f"{head}\r\n".encode() + body[:100])
        time.sleep(0.5)  # the key is checked when the headers have arrived
        catalogue.keys.revoke("till")
        connection.sendall(body[100:])
        assert b" 401 " in connection.recv(4096).partition(b"\r\n")[0]
    assert client.get("/v1/collections/shop/items/new").status_code == 404


def test_collections_and_metrics_need_a_key_once_keys_exist(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy)
    while client.get("/readyz").status_code != 200:
        time.sleep(0.05)
    assert "shop" in client.get("/readyz").text
    assert client.get("/metrics").status_code == 200
    key = create_key(catalogue, "monitor", "read")
    for headers in ({}, bearer("wrong")):
        ready = client.get("/readyz", headers=headers)
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "read_only": False, "collections": []})
        assert_problem(client.get("/metrics", headers=headers), 401)
    assert "shop" in client.get("/readyz", headers=bearer(key)).text
    assert client.get("/metrics", headers=bearer(key)).status_code == 200


def test_images_are_not_publicly_cached_once_keys_exist(serve: Serve, home_copy: Path, catalogue: Catalogue) -> None:
    client = serve(home_copy)
    for visibility in ("public", "private"):
        image = client.get("/v1/collections/shop/images/1")
        assert image.headers["cache-control"] == f"{visibility}, max-age=300"
        assert image.headers["vary"] == "Authorization"
        create_key(catalogue, visibility, "read")


def test_activating_a_generation_needs_admin_access(serve: Serve, home_copy: Path, catalogue: Catalogue) -> None:
    client = serve(home_copy)
    keys = {scope: create_key(catalogue, scope, scope) for scope in ("read", "write", "admin")}
    assert_problem(client.put(ACTIVE, json={"number": 1}), 401)
    for scope in ("read", "write"):
        assert_problem(client.put(ACTIVE, json={"number": 1}, headers=bearer(keys[scope])), 403)
    done: httpx.Response = client.put(ACTIVE, json={"number": 1}, headers=bearer(keys["admin"]))
    assert (done.status_code, done.json()["number"], done.json()["status"]) == (200, 1, "active")
    assert_problem(client.put(ACTIVE, json={"number": 9}, headers=bearer(keys["admin"])), 404)
