"""Malformed requests: the right status, a problem document with one clear line, no traceback, nothing lost."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.settings import Settings
from tests.malformed import BAD_IMAGES, GOOD, ODD_IMAGES, everything, write_home
from tests.service.conftest import running


@pytest.fixture(scope="module")
def served_home(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Path:
    return write_home(tmp_path_factory.mktemp("malformed"), encoder_dir) / "home"


@pytest.fixture(scope="module")
def untouched(served_home: Path) -> tuple[Any, ...]:
    return everything(served_home)


@pytest.fixture(scope="module")
def client(served_home: Path) -> Iterator[httpx.Client]:
    with running(create_app(Settings(home=served_home))) as url, httpx.Client(base_url=url, timeout=30) as opened:
        yield opened


SEARCH = "/v1/collections/default/search"
ITEM = "/v1/collections/default/items/new"


def form(**fields: str) -> dict[str, Any]:
    return {"files": {"image": ("a.jpg", GOOD)}, "data": fields}


def as_json(**fields: Any) -> dict[str, Any]:
    return {"json": fields}


BASE64 = base64.b64encode(GOOD).decode()
HTTP_ERRORS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "k-0": ("POST", SEARCH, form(k="0"), 422),
    "k-text": ("POST", SEARCH, form(k="ten"), 422),
    "k-huge": ("POST", SEARCH, form(k="1001"), 422),
    "k-fraction": ("POST", SEARCH, form(k="1.5"), 422),
    "offset-negative": ("POST", SEARCH, form(offset="-1"), 422),
    "offset-deep": ("POST", SEARCH, form(offset="10000"), 422),
    "unknown-filter": ("POST", SEARCH, form(filter="colour=red"), 422),
    "filter-form": ("POST", SEARCH, form(filter="red"), 422),
    "region-three": ("POST", SEARCH, form(region="0,0,1"), 422),
    "region-outside": ("POST", SEARCH, form(region="0.5,0,0.9,1"), 422),
    "region-empty": ("POST", SEARCH, form(region="0,0,0,0"), 422),
    "region-nan": ("POST", SEARCH, form(region="nan,0,1,1"), 422),
    "unknown-field": ("POST", SEARCH, form(colour="red"), 422),
    "no-image": ("POST", SEARCH, {"files": {"other": ("a.jpg", GOOD)}}, 422),
    "image-as-text": ("POST", SEARCH, {"data": {"image": "x"}, "files": {"k": ("k", b"3")}}, 422),
    "two-images": ("POST", SEARCH, {"files": [("image", ("a", GOOD)), ("image", ("b", GOOD))]}, 422),
    "json-broken": ("POST", SEARCH, {"content": b"{", "headers": {"content-type": "application/json"}}, 422),
    "json-list": ("POST", SEARCH, {"json": [1, 2]}, 422),
    "json-nothing": ("POST", SEARCH, as_json(), 422),
    "json-two-queries": ("POST", SEARCH, as_json(item_id="a", vector=[1.0]), 422),
    "json-vector-short": ("POST", SEARCH, as_json(vector=[1.0, 2.0]), 422),
    "json-vector-text": ("POST", SEARCH, as_json(vector=["a"]), 422),
    "json-vector-zero": ("POST", SEARCH, as_json(vector=[0.0] * 768), 422),
    "json-base64": ("POST", SEARCH, as_json(image_base64="???"), 422),
    "json-base64-text": ("POST", SEARCH, as_json(image_base64=base64.b64encode(b"text").decode()), 422),
    "json-url": ("POST", SEARCH, as_json(image_url="http://127.0.0.1/x.jpg"), 422),
    "json-k-text": ("POST", SEARCH, as_json(image_base64=BASE64, k="5"), 422),
    "json-unknown-item": ("POST", SEARCH, as_json(item_id="nobody"), 404),
    "content-type": ("POST", SEARCH, {"content": GOOD, "headers": {"content-type": "image/jpeg"}}, 415),
    "no-content-type": ("POST", SEARCH, {"content": GOOD}, 415),
    "unknown-collection": ("POST", "/v1/collections/nope/search", form(), 404),
    "collection-path": ("POST", "/v1/collections/..%2f..%2fetc/search", form(), 404),
    "unknown-item": ("GET", "/v1/collections/default/items/nobody", {}, 404),
    "unknown-item-similar": ("GET", "/v1/collections/default/items/nobody/similar", {}, 404),
    "similar-k": ("GET", "/v1/collections/default/items/bag/0000.jpg/similar?k=0", {}, 422),
    "unknown-image": ("GET", "/v1/collections/default/images/99999", {}, 404),
    "image-id-text": ("GET", "/v1/collections/default/images/one", {}, 422),
    "delete-unknown": ("DELETE", "/v1/collections/default/items/nobody", {}, 404),
    "put-no-image": ("PUT", ITEM, as_json(title="x", images_base64=[]), 422),
    "put-bad-image": ("PUT", ITEM, {"files": {"image": ("a.jpg", b"text")}}, 422),
    "put-attributes": ("PUT", ITEM, form(attributes="not json"), 422),
    "put-attributes-number": ("PUT", ITEM, as_json(images_base64=[BASE64], attributes={"price": 3}), 422),
    "put-unknown-collection": ("PUT", "/v1/collections/nope/items/a", form(), 404),
    "put-long-id": ("PUT", "/v1/collections/default/items/" + "x" * 600, form(), 422),
    "put-control-id": ("PUT", "/v1/collections/default/items/a%00b", form(), 422),
    "method": ("PATCH", SEARCH, {}, 405),
    "path": ("GET", "/v2/anything", {}, 404),
}


@pytest.mark.parametrize("case", HTTP_ERRORS)
def test_a_bad_request_gets_its_status_and_a_problem_document(
    case: str, client: httpx.Client, served_home: Path, untouched: tuple[Any, ...]
) -> None:
    method, path, options, status = HTTP_ERRORS[case]
    response = client.request(method, path, **options)
    assert_problem(response, status)
    assert everything(served_home) == untouched


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_uploading_a_bad_file_gets_the_reason(name: str, client: httpx.Client) -> None:
    import re

    data, reason = BAD_IMAGES[name]
    document = assert_problem(client.post(SEARCH, files={"image": ("photo.jpg", data)}), 422)
    assert re.search(reason, document["detail"])


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_uploading_an_odd_but_whole_image_is_answered(name: str, client: httpx.Client) -> None:
    response = client.post(SEARCH, files={"image": ("photo.jpg", ODD_IMAGES[name])}, data={"k": "3"})
    assert response.status_code == 200
    assert len(response.json()["results"]) == 3


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert response.status_code == status, document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["detail"] and "\n" not in document["detail"]
    assert "Traceback" not in response.text and "/tmp/" not in response.text
    return document
