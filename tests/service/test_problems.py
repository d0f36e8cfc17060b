"""Whatever is wrong with a request, it is answered by a problem document that names it."""

from __future__ import annotations

import base64
import io
import logging
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.conftest import draw_photo
from tests.service.conftest import Serve, assert_problem, running

SEARCH = "/v1/collections/shop/search"


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = encoded(draw_photo(7), "JPEG")
UNUSABLE = {
    "empty": (b"", "0 bytes"),
    "text named .jpg": (b"These are not the pixels you are looking for.\n", "text, not an image"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
    "pdf": (b"%PDF-1.7\n\xe2\xe3\xcf\xd3\n", "not a supported image"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "truncated or corrupt"),
    "jpeg start alone": (b"\xff\xd8\xff", "its header cannot be read"),
    "truncated png": (encoded(draw_photo(7), "PNG")[:400], "truncated or corrupt"),
    "bomb": (png_header(50_000, 50_000), "50000 x 50000 pixels"),
    "empty png": (png_header(64, 64), "truncated or corrupt"),
    "noise": (bytes(range(128, 256)) * 40, "not a supported image"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_refused_with_its_reason(client: httpx.Client, name: str) -> None:
    data, reason = UNUSABLE[name]
    upload = client.post(SEARCH, files={"image": ("photo.jpg", data, "image/jpeg")})
    assert reason in assert_problem(upload, 422, field="image")["detail"]
    as_json = client.post(SEARCH, json={"image_base64": base64.b64encode(data).decode()})
    assert reason in assert_problem(as_json, 422, field="image")["detail"]


USABLE = {
    "png with alpha": encoded(Image.new("RGBA", (40, 50), (200, 30, 30, 90)), "PNG"),
    "16-bit png": encoded(Image.new("I;16", (40, 50), 30_000), "PNG"),
    "palette gif": encoded(draw_photo(8).convert("P"), "GIF"),
    "cmyk jpeg": encoded(draw_photo(8).convert("CMYK"), "JPEG"),
    "grey jpeg": encoded(draw_photo(8).convert("L"), "JPEG"),
    "webp": encoded(draw_photo(8), "WEBP"),
    "tiff": encoded(draw_photo(8), "TIFF"),
    "bmp": encoded(draw_photo(8), "BMP"),
    "one pixel": encoded(Image.new("RGB", (1, 1), "navy"), "PNG"),
}


@pytest.mark.parametrize("name", USABLE)
def test_every_kind_of_image_is_searched(client: httpx.Client, name: str) -> None:
    response = client.post(SEARCH, files={"image": ("photo", USABLE[name])})
    assert response.status_code == 200, response.text
    assert len(response.json()["results"]) == 10


FORMS = {
    "k of zero": ({"k": "0"}, "k"),
    "k too large": ({"k": "1001"}, "k"),
    "k not a number": ({"k": "many"}, "k"),
    "k twice": ({"k": ["1", "2"]}, "k"),
    "negative offset": ({"offset": "-1"}, "offset"),
    "too deep": ({"offset": "9995", "k": "10"}, "body"),
    "unknown field": ({"limit": "5"}, "limit"),
    "filter without a value": ({"filter": "category"}, "filter.0"),
    "filter without a key": ({"filter": "=hat"}, "filter.0"),
    "two values of one filter": ({"filter": ["category=hat", "category=bag"]}, "filter"),
    "filter on no attribute": ({"filter": "material=wool"}, "filter"),
    "region of three": ({"region": "0,0,1"}, "region.3"),
    "region of words": ({"region": "a,b,c,d"}, "region.0"),
    "region of nan": ({"region": "nan,0,1,1"}, "region.0"),
    "region outside": ({"region": "0.5,0.5,0.6,0.5"}, "region"),
    "region without width": ({"region": "0.5,0.5,0,0.5"}, "region"),
    "region negative": ({"region": "-0.1,0,1,1"}, "region.0"),
    "image as text": ({"image": "a.jpg"}, "image"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_wrong_form_is_refused_by_field(client: httpx.Client, name: str) -> None:
    form, field = FORMS[name]
    assert_problem(client.post(SEARCH, files={"image": JPEG}, data=form), 422, field=field)


BODIES: dict[str, tuple[str, str]] = {
    "not json": ("{", "body"),
    "a list": ("[]", "body"),
    "nothing to search by": ('{"k": 3}', "body"),
    "two things to search by": ('{"item_id": "a", "vector": [1]}', "body"),
    "region of an item": ('{"item_id": "bag/0000", "region": [0, 0, 1, 1]}', "body"),
    "k as text": ('{"item_id": "bag/0000", "k": "3"}', "k"),
    "k as a truth": ('{"item_id": "bag/0000", "k": true}', "k"),
    "vector of another length": ('{"vector": [1, 2, 3]}', "vector"),
    "vector of zeros": ('{"vector": [' + ",".join(["0"] * 768) + "]}", "vector"),
    "vector with nan": ('{"vector": [NaN]}', "vector.0"),
    "vector with infinity": ('{"vector": [1e999]}', "vector.0"),
    "vector of words": ('{"vector": ["a"]}', "vector.0"),
    "empty vector": ('{"vector": []}', "vector"),
    "an address": ('{"image_url": "http://169.254.169.254/"}', "image_url"),
    "broken base64": ('{"image_base64": "a*b"}', "image_base64"),
    "filter as a list": ('{"item_id": "bag/0000", "filter": ["category=hat"]}', "filter"),
    "region of four words": ('{"image_base64": "QUJD", "region": ["a", "b", "c", "d"]}', "region.0"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_wrong_json_body_is_refused_by_field(client: httpx.Client, name: str) -> None:
    body, field = BODIES[name]
    response = client.post(SEARCH, content=body, headers={"content-type": "application/json"})
    assert_problem(response, 422, field=field)


def test_all_wrong_fields_are_told_at_once(client: httpx.Client) -> None:
    document = client.post(SEARCH, files={"image": JPEG}, data={"k": "0", "offset": "-3", "colour": "red"}).json()
    assert {entry["field"] for entry in document["errors"]} == {"k", "offset", "colour"}


def test_a_body_of_another_type_is_refused(client: httpx.Client) -> None:
    for content_type in ("image/jpeg", "text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"content-type": content_type}
        detail = assert_problem(client.post(SEARCH, content=JPEG, headers=headers), 415)["detail"]
        assert "multipart/form-data or application/json" in detail


def test_a_broken_form_is_refused(client: httpx.Client) -> None:
    headers = {"content-type": "multipart/form-data"}
    assert_problem(client.post(SEARCH, content=b"--x", headers=headers), 400)
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert_problem(client.post(SEARCH, content=b"not a form", headers=headers), 400)


def test_an_unknown_path_and_method_are_problems_too(client: httpx.Client) -> None:
    assert "/openapi.json" in assert_problem(client.get("/v2/search"), 404)["detail"]
    response = client.get(SEARCH)
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_details_name_the_value_and_the_remedy(client: httpx.Client) -> None:
    detail = client.post(SEARCH, files={"image": JPEG}, data={"filter": "material=wool"}).json()["detail"]
    assert detail == "no item has an attribute 'material'; attributes are category, colour"
    detail = client.post(SEARCH, json={"vector": [1.0, 2.0]}).json()["detail"]
    assert detail == "vector has 2 numbers; collection 'shop' needs 768"


def test_a_database_that_fails_is_told_to_the_log_alone(
    serve: Serve, home_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(home_copy)
    answers = (client.get("/readyz") for _ in range(1000))  # the start-up load may still be under way
    assert any(answer.status_code == 200 for answer in answers)
    with closing(sqlite3.connect(home_copy / "catalogue.sqlite")) as database:
        database.execute("ALTER TABLE items RENAME TO lost")
    with caplog.at_level(logging.ERROR):
        document = assert_problem(client.get("/v1/collections"), 500)
    assert document["detail"] == "the server cannot answer this request at the moment; see its log"
    assert "no such table" in caplog.text
    assert client.get("/healthz").json() == {"status": "ok"}


def test_an_error_that_nobody_foresaw_says_nothing_of_the_inside(
    indexed_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(home=indexed_home, query_log=0))

    @app.get("/unforeseen")
    def unforeseen() -> float:
        return 1 / 0

    with caplog.at_level(logging.ERROR), running(app) as url:
        response = httpx.get(f"{url}/unforeseen", headers={"X-Request-ID": "abc"})
    assert assert_problem(response, 500)["request_id"] == "abc"
    assert "ZeroDivisionError" not in response.text
    assert "ZeroDivisionError" in caplog.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_damaged_index_is_told_to_the_log_alone(
    serve: Serve, home_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    next(home_copy.glob("collections/shop/generations/*/manifest.json")).write_text("{}")
    with caplog.at_level(logging.ERROR):
        client = serve(home_copy)
        document = assert_problem(client.post(SEARCH, files={"image": JPEG}), 503)
    assert str(home_copy) not in document["detail"]
    assert "manifest.json" in caplog.text
    assert_problem(client.get("/readyz"), 503)
