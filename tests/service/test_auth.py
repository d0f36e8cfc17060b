"""API keys: nothing is closed before the first, and then by scope."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.catalogue import Catalogue
from indexer.errors import InvalidRequestError
from service.auth import create_key, hash_key, new_key
from tests.service.conftest import Serve, assert_problem, bearer

ITEM = "/v1/collections/shop/items/keyed"
READS = ("/v1/collections", "/v1/collections/shop/items/bag/0000", "/v1/encoders", "/v1/limits", "/metrics")


def put(client: httpx.Client, photo: bytes, key: str | None = None) -> httpx.Response:
    return client.put(ITEM, files={"image": photo}, headers=bearer(key) if key else {})


def test_without_any_key_everything_is_open(serve: Serve, home_copy: Path, photo: bytes) -> None:
    client = serve(home_copy)
    assert put(client, photo).status_code == 201
    assert put(client, photo, "whatever").status_code == 200


def test_from_the_first_key_on_writing_needs_one(
    serve: Serve, home_copy: Path, catalogue: Catalogue, photo: bytes
) -> None:
    client = serve(home_copy)
    key = create_key(catalogue, "till", "write")
    refused = put(client, photo)
    assert "write access" in assert_problem(refused, 401)["detail"]
    assert refused.headers["www-authenticate"] == 'Bearer realm="nitamono"'
    assert_problem(client.delete("/v1/collections/shop/items/bag/0000"), 401)
    assert put(client, photo, key).status_code == 201
    assert client.delete(ITEM, headers=bearer(key)).status_code == 204
    assert client.get("/v1/collections/shop/items/bag/0000").status_code == 200


def test_a_scope_includes_the_lesser_ones_alone(
    serve: Serve, home_copy: Path, catalogue: Catalogue, photo: bytes
) -> None:
    client = serve(home_copy, public_read=False)
    keys = {scope: create_key(catalogue, scope, scope) for scope in ("read", "write", "admin")}
    refused = put(client, photo, keys["read"])
    assert "'read' has read access" in assert_problem(refused, 403)["detail"]
    assert 'error="insufficient_scope", scope="write"' in refused.headers["www-authenticate"]
    for scope in ("write", "admin"):
        assert put(client, photo, keys[scope]).status_code in (200, 201)
    for key in keys.values():
        assert client.get("/v1/collections", headers=bearer(key)).status_code == 200


def test_reading_can_be_closed_too(serve: Serve, home_copy: Path, catalogue: Catalogue, photo: bytes) -> None:
    client = serve(home_copy, public_read=False)
    key = create_key(catalogue, "page", "read")
    for path in READS:
        assert_problem(client.get(path), 401)
        assert client.get(path, headers=bearer(key)).status_code == 200
    search = "/v1/collections/shop/search"
    assert_problem(client.post(search, files={"image": photo}), 401)
    assert client.post(search, files={"image": photo}, headers=bearer(key)).status_code == 200
    picture = client.get("/v1/collections/shop/images/1", headers=bearer(key))
    assert picture.headers["cache-control"].startswith("private")
    for path in ("/healthz", "/readyz", "/", "/static/app.js", "/openapi.json"):
        assert client.get(path).status_code == 200, path


def test_a_revoked_or_unknown_key_opens_nothing(
    serve: Serve, home_copy: Path, catalogue: Catalogue, photo: bytes
) -> None:
    client = serve(home_copy)
    key = create_key(catalogue, "till", "write")
    assert put(client, photo, key).status_code == 201
    catalogue.keys.revoke("till")
    assert "revoked" in assert_problem(put(client, photo, key), 401)["detail"]
    assert_problem(put(client, photo, new_key()), 401)
    assert_problem(put(client, photo), 401)  # no key is valid any more, and still the API is not open
    assert_problem(client.get("/v1/collections", headers=bearer(key)), 401)


def test_a_key_is_stored_as_its_hash_alone(home_copy: Path, catalogue: Catalogue) -> None:
    key = create_key(catalogue, "till", "admin")
    assert hash_key(key) == hashlib.sha256(key.encode()).hexdigest()
    assert catalogue.keys.find(hash_key(key)) is not None
    for file in home_copy.glob("catalogue.sqlite*"):
        assert key.encode() not in file.read_bytes()
    assert len({new_key() for _ in range(100)}) == 100
    assert len(key) > 43


def test_a_key_needs_a_known_scope_and_a_free_name(catalogue: Catalogue) -> None:
    with pytest.raises(InvalidRequestError, match="scope 'root' is not one of read, write, admin"):
        create_key(catalogue, "till", "root")
    create_key(catalogue, "till", "read")
    with pytest.raises(InvalidRequestError, match="'till' exists already"):
        create_key(catalogue, "till", "read")
