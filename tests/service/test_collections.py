"""Collections, facets, pictures, encoders and generations as a page reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_photo
from tests.service.conftest import ITEMS, Serve, assert_problem


def first_image(client: httpx.Client, item_id: str = "bag/0000") -> str:
    url: str = client.get(f"/v1/collections/shop/items/{item_id}").json()["images"][0]["image_url"]
    return url


def test_collections_are_listed_with_their_counts(client: httpx.Client) -> None:
    (listed,) = client.get("/v1/collections").json()["collections"]
    assert (listed["name"], listed["items"], listed["images"], listed["rejected"]) == ("shop", ITEMS, ITEMS + 1, 0)
    assert listed["generation"] == 1


def test_facets_count_items_by_attribute_value(client: httpx.Client) -> None:
    facets = client.get("/v1/collections/shop").json()["facets"]
    assert {entry["value"]: entry["count"] for entry in facets["category"]} == {"bag": 10, "hat": 10, "mug": 10}
    assert sum(entry["count"] for entry in facets["colour"]) == ITEMS
    assert_problem(client.get("/v1/collections/nowhere"), 404)


def test_encoders_and_generations_name_what_answers(client: httpx.Client) -> None:
    (encoder,) = client.get("/v1/encoders").json()["encoders"]
    (generation,) = client.get("/v1/generations").json()["generations"]
    assert (encoder["family"], encoder["dim"], encoder["metric"]) == ("pixels", 768, "cosine")
    assert encoder["trained_from"] == "not stated"
    assert generation["encoder_id"] == encoder["encoder_id"]
    assert (generation["number"], generation["status"], generation["count"]) == (1, "active", ITEMS + 1)
    assert client.get("/v1/generations", params={"collection": "shop"}).json()["generations"] == [generation]
    assert_problem(client.get("/v1/generations", params={"collection": "nowhere"}), 404)


def test_no_answer_tells_where_files_lie(client: httpx.Client, shop: Path) -> None:
    for path in ("/v1/collections/shop/items/bag/0000", "/v1/generations", "/v1/encoders", "/v1/collections/shop"):
        assert str(shop.parent) not in client.get(path).text


def test_a_thumbnail_is_a_smaller_jpeg_of_the_photo(client: httpx.Client) -> None:
    response = client.get(first_image(client), params={"width": 48})
    assert response.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(response.content))
    assert (shown.format, shown.size) == ("JPEG", (48, 64))
    original = draw_photo(0).resize((48, 64), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(shown, dtype=float) - np.asarray(original, dtype=float)).mean()
    assert difference < 8


def test_a_thumbnail_never_enlarges(client: httpx.Client) -> None:
    response = client.get(first_image(client), params={"width": 2000})
    assert Image.open(io.BytesIO(response.content)).size == (96, 128)


def test_a_thumbnail_stands_upright(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 60), "teal").save(out, "JPEG", exif=exif)
    item = client.put("/v1/collections/shop/items/turned", files={"image": out.getvalue()}).json()
    shown = Image.open(io.BytesIO(client.get(item["images"][0]["image_url"]).content))
    assert shown.size == (60, 120)


def test_an_unchanged_picture_is_not_sent_again(client: httpx.Client) -> None:
    url = first_image(client)
    first = client.get(url, params={"width": 64})
    assert "max-age" in first.headers["cache-control"]
    for tag in (first.headers["etag"], f"W/{first.headers['etag']}", f'"other", {first.headers["etag"]}'):
        again = client.get(url, params={"width": 64}, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    other_width = client.get(url, params={"width": 65}, headers={"If-None-Match": first.headers["etag"]})
    assert other_width.status_code == 200


@pytest.mark.parametrize("query", [{"width": 0}, {"width": 100_000}, {"width": "wide"}, {"width": -5}])
def test_a_width_that_cannot_be_is_refused(client: httpx.Client, query: dict[str, Any]) -> None:
    assert_problem(client.get(first_image(client), params=query), 422, field="width")


@pytest.mark.parametrize("image_id", ["999999", "9223372036854775807"])
def test_an_unknown_picture_is_not_found(client: httpx.Client, image_id: str) -> None:
    assert_problem(client.get(f"/v1/collections/shop/images/{image_id}"), 404)


def test_a_picture_number_that_cannot_be_is_refused(client: httpx.Client) -> None:
    for image_id in ("0", "x", "9223372036854775808"):
        assert_problem(client.get(f"/v1/collections/shop/images/{image_id}"), 422, field="image_id")


def test_a_picture_belongs_to_its_own_collection_alone(client: httpx.Client) -> None:
    path = first_image(client).replace("/shop/", "/nowhere/")
    assert_problem(client.get(path), 404)


def test_the_page_and_its_files_are_served_and_nothing_beside_them(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.head("/").status_code == 200
    script = client.get("/static/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = client.get("/static/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    for path in ("/static/__init__.py", "/static/../app.py", "/static/%2e%2e/settings.py", "/static/", "/static/no.js"):
        assert_problem(client.get(path), 404)


def test_the_page_names_no_other_host(client: httpx.Client) -> None:
    files = [
        "/",
        *(
            f"/static/{name}.js"
            for name in ("app", "api", "cards", "crop", "filters", "inputs", "notice", "photos", "query", "route")
        ),
    ]
    for path in [*files, "/static/style.css"]:
        text = client.get(path).text
        assert "http://" not in text and "https://" not in text, path
