"""Items are stored, shown, searched at once and removed."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conftest import draw_photo
from tests.service.conftest import Serve, assert_problem

ITEMS_URL = "/v1/collections/shop/items"


def jpeg(number: int) -> bytes:
    out = io.BytesIO()
    draw_photo(number).save(out, "JPEG", quality=92)
    return out.getvalue()


def best(client: httpx.Client, photo: bytes) -> dict[str, Any]:
    answer = client.post("/v1/collections/shop/search", files={"image": photo}, data={"k": 1}).json()
    hit: dict[str, Any] = answer["results"][0]
    return hit


@pytest.fixture
def writable(serve: Serve, home_copy: Path) -> httpx.Client:
    return serve(home_copy)


def test_a_put_item_is_found_before_the_next_request(writable: httpx.Client) -> None:
    photo = jpeg(501)
    fields = {"title": "New bag", "attributes": json.dumps({"category": "bag", "season": "spring"})}
    response = writable.put(f"{ITEMS_URL}/new/bag.1", files={"image": photo}, data=fields)
    assert response.status_code == 201
    assert response.headers["location"] == f"{ITEMS_URL}/new%2Fbag.1"
    item = response.json()
    assert (item["item_id"], item["title"]) == ("new/bag.1", "New bag")
    assert [image["status"] for image in item["images"]] == ["ok"]
    hit = best(writable, photo)
    assert (hit["item_id"], hit["attributes"]["season"]) == ("new/bag.1", "spring")
    assert hit["score"] == pytest.approx(1, abs=1e-4)
    assert writable.get(response.headers["location"]).json() == item


def test_putting_again_replaces_photos_title_and_attributes(writable: httpx.Client) -> None:
    old, new = jpeg(502), jpeg(503)
    body = {"title": "Old", "attributes": {"category": "hat"}, "images_base64": [base64.b64encode(old).decode()]}
    assert writable.put(f"{ITEMS_URL}/one", json=body).status_code == 201
    body = {"attributes": {"category": "mug"}, "images_base64": [base64.b64encode(new).decode()]}
    response = writable.put(f"{ITEMS_URL}/one", json=body)
    assert response.status_code == 200
    assert (response.json()["title"], response.json()["attributes"]) == (None, {"category": "mug"})
    assert best(writable, new)["item_id"] == "one"
    assert best(writable, old)["item_id"] != "one"


def test_several_photos_are_all_searched(writable: httpx.Client) -> None:
    photos = [jpeg(504), jpeg(505), jpeg(506)]
    response = writable.put(f"{ITEMS_URL}/many", files=[("image", (f"{n}.jpg", p)) for n, p in enumerate(photos)])
    assert len(response.json()["images"]) == 3
    assert {best(writable, photo)["item_id"] for photo in photos} == {"many"}


def test_a_deleted_item_is_gone_at_once(writable: httpx.Client) -> None:
    photo = jpeg(507)
    assert writable.put(f"{ITEMS_URL}/a/b/c", files={"image": photo}).status_code == 201
    assert writable.delete(f"{ITEMS_URL}/a/b/c").status_code == 204
    assert best(writable, photo)["item_id"] != "a/b/c"
    assert_problem(writable.get(f"{ITEMS_URL}/a/b/c"), 404)
    assert_problem(writable.delete(f"{ITEMS_URL}/a/b/c"), 404)
    assert writable.delete(f"{ITEMS_URL}/bag/0000").status_code == 204
    assert writable.get("/v1/collections/shop").json()["items"] == 29


def test_what_was_put_is_there_after_a_restart(serve: Serve, home_copy: Path) -> None:
    photo = jpeg(508)
    assert serve(home_copy).put(f"{ITEMS_URL}/kept", files={"image": photo}).status_code == 201
    assert best(serve(home_copy), photo)["item_id"] == "kept"


def test_an_item_named_similar_is_reached_by_an_encoded_slash(writable: httpx.Client) -> None:
    assert writable.put(f"{ITEMS_URL}/a%2Fsimilar", files={"image": jpeg(509)}).status_code == 201
    assert writable.get(f"{ITEMS_URL}/a%2Fsimilar").json()["item_id"] == "a/similar"
    answer = writable.get(f"{ITEMS_URL}/a%2Fsimilar/similar", params={"k": 100}).json()
    assert "a/similar" not in [hit["item_id"] for hit in answer["results"]]
    assert writable.delete(f"{ITEMS_URL}/a%2Fsimilar").status_code == 204


@pytest.mark.parametrize(
    "item_id",
    [
        "ありがとう/帽子 1", "100% wool?#1", "dress/0_a+b&c=d.jpg", "x" * 512, "می\u200cخواهم.jpg",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467", "10\u00a0000", " spaced ",
    ],
)  # fmt: skip
def test_any_id_without_control_characters_survives_the_url(writable: httpx.Client, item_id: str) -> None:
    path = f"{ITEMS_URL}/{quote(item_id, safe='')}"
    assert writable.put(path, files={"image": jpeg(510)}).status_code == 201
    assert writable.get(path).json()["item_id"] == item_id
    assert writable.get(f"{path}/similar", params={"k": 1}).status_code == 200
    assert writable.delete(path).status_code == 204


def test_an_unusable_photo_stores_nothing(writable: httpx.Client) -> None:
    files = [("image", ("a.jpg", jpeg(511))), ("image", ("b.jpg", b"not an image"))]
    assert_problem(writable.put(f"{ITEMS_URL}/broken", files=files), 422, field="image")
    assert_problem(writable.get(f"{ITEMS_URL}/broken"), 404)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"attributes": "{not json"}, "attributes"),
        ({"attributes": '["a"]'}, "attributes"),
        ({"attributes": '{"size": 4}'}, "attributes.size"),
        ({"attributes": '{"size": "\\u0000"}'}, "attributes.size"),
        ({"attributes": '{"size": "\\ud83d"}'}, "attributes"),
        ({"title": "a\0b"}, "title"),
        ({"colour": "red"}, "colour"),
        ({"title": ["a", "b"]}, "title"),
    ],
)
def test_a_wrong_form_field_is_named(writable: httpx.Client, form: dict[str, Any], field: str) -> None:
    response = writable.put(f"{ITEMS_URL}/x", files={"image": jpeg(512)}, data=form)
    assert_problem(response, 422, field=field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "images_base64"),
        ({"images_base64": []}, "images_base64"),
        ({"images_base64": ["%%%"]}, "images_base64.0"),
        ({"images_base64": "QUJD"}, "images_base64"),
        ({"images_base64": ["QUJD"] * 17}, "images_base64"),
        ({"images_base64": ["QUJD"], "title": 7}, "title"),
        ({"images_base64": ["QUJD"], "url": "http://example.com/a.jpg"}, "url"),
        ({"images_base64": ["QUJD"], "title": "cut emoji \ud83d"}, "title"),
        ({"images_base64": ["QUJD"], "attributes": {"mood": "\ud83d"}}, "attributes.mood"),
        ({"images_base64": ["QUJD"], "attributes": {"col\ud83d": "red"}}, "attributes"),
        ({"images_base64": ["QUJD"], "title": "a\0b"}, "title"),
        ({"images_base64": ["QUJD"], "attributes": {"mood": "\x1b[2J"}}, "attributes.mood"),
        ({"images_base64": ["QUJD"], "attributes": {"a\nb": "red"}}, r"attributes.a\nb"),
    ],
)
def test_a_wrong_json_field_is_named(writable: httpx.Client, body: dict[str, Any], field: str) -> None:
    content = json.dumps(body)
    response = writable.put(f"{ITEMS_URL}/x", content=content, headers={"content-type": "application/json"})
    assert_problem(response, 422, field=field)


def test_an_item_needs_a_collection_that_is_indexed(writable: httpx.Client) -> None:
    response = writable.put("/v1/collections/nowhere/items/x", files={"image": jpeg(513)})
    assert "existing ones: shop" in assert_problem(response, 404)["detail"]


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize("item_id", ["a%00b", "a%0Ab", "a%C2%85b", "x" * 513])
def test_an_id_that_no_item_can_have_is_refused_by_name(writable: httpx.Client, method: str, item_id: str) -> None:
    body = {"files": {"image": jpeg(514)}} if method == "PUT" else {}
    response = writable.request(method, f"{ITEMS_URL}/{item_id}", **body)
    problem = assert_problem(response, 422, field="item_id")
    assert "at character 2; remove it" in problem["detail"] or "513" in problem["detail"] or "512" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"item_id": "a\\u0000"}', "item_id"),
        ('{"item_id": "\\ud83d"}', "item_id"),
        ('{"item_id": "bag/0000", "filter": {"colour": "\\u0000"}}', "filter.colour"),
        ('{"item_id": "bag/0000", "filter": {"\\u0000": "red"}}', r"filter.\x00"),
    ],
)
def test_a_search_with_a_text_that_no_item_can_have_is_refused(client: httpx.Client, body: str, field: str) -> None:
    headers = {"content-type": "application/json"}
    response = client.post("/v1/collections/shop/search", content=body, headers=headers)
    assert_problem(response, 422, field=field)
    found = client.get("/v1/collections/shop/items/bag%2F0000/similar", params={"filter": "colour=a\0"})
    assert_problem(found, 422, field="filter.0")
