"""What is too much is refused before it is worked on."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.service.conftest import Serve, assert_problem

SEARCH = "/v1/collections/shop/search"
LIMIT = 64 * 1024


@pytest.fixture
def limited(serve: Serve, indexed_home: Path) -> httpx.Client:
    return serve(indexed_home, max_upload_bytes=LIMIT, max_pixels=10_000)


def multipart(size: int) -> tuple[bytes, dict[str, str]]:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    end = b"\r\n--x--\r\n"
    body = part + b"\xff" * (size - len(part) - len(end)) + end
    return body, {"content-type": "multipart/form-data; boundary=x"}


def in_chunks(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), 4096):
        yield body[begin : begin + 4096]


def test_a_body_over_the_limit_is_refused_by_its_declared_length(limited: httpx.Client) -> None:
    body, headers = multipart(LIMIT + 1)
    detail = assert_problem(limited.post(SEARCH, content=body, headers=headers), 413)["detail"]
    assert detail == f"the request has {LIMIT + 1} bytes; the limit is {LIMIT} bytes"


def test_a_body_over_the_limit_is_refused_when_it_declares_no_length(limited: httpx.Client) -> None:
    body, headers = multipart(20 * LIMIT)
    response = limited.post(SEARCH, content=in_chunks(body), headers=headers)
    assert "transfer-encoding" in response.request.headers
    assert str(LIMIT) in assert_problem(response, 413)["detail"]
    json_body = json.dumps({"image_base64": base64.b64encode(body).decode()}).encode()
    headers = {"content-type": "application/json"}
    assert_problem(limited.post(SEARCH, content=in_chunks(json_body), headers=headers), 413)
    assert_problem(limited.put("/v1/collections/shop/items/x", content=in_chunks(json_body), headers=headers), 413)
    assert limited.get("/healthz").status_code == 200


def test_a_body_at_the_limit_is_read(limited: httpx.Client) -> None:
    body, headers = multipart(LIMIT)
    assert_problem(limited.post(SEARCH, content=body, headers=headers), 422, field="image")
    assert_problem(limited.post(SEARCH, content=in_chunks(body), headers=headers), 422, field="image")


def test_a_refusal_does_not_wait_for_the_body(limited: httpx.Client) -> None:
    with socket.create_connection((limited.base_url.host, limited.base_url.port or 0), timeout=10) as connection:
        head = (
            f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {2**40}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_image_with_too_many_pixels_is_refused_wherever_it_comes(limited: httpx.Client) -> None:
    out = io.BytesIO()
    Image.new("RGB", (101, 100), "navy").save(out, "PNG")
    for response in (
        limited.post(SEARCH, files={"image": out.getvalue()}),
        limited.put("/v1/collections/shop/items/x", files={"image": out.getvalue()}),
    ):
        assert "10000" in assert_problem(response, 422, field="image")["detail"]
    assert_problem(limited.get("/v1/collections/shop/images/1"), 422, field="image")  # 96 x 128 of the shop


def test_too_many_files_and_fields_are_refused(client: httpx.Client) -> None:
    files = [("image", ("a.jpg", b"x"))] * 17
    assert_problem(client.post(SEARCH, files=files), 400)
    fields = {f"field{n}": "x" for n in range(50)}
    assert_problem(client.post(SEARCH, files={"image": b"x"}, data=fields), 400)
    assert_problem(client.post(SEARCH, files={"image": b"x"}, data={"k": "1" * 2_000_000}), 400)


def test_limits_are_told(limited: httpx.Client) -> None:
    told = limited.get("/v1/limits").json()
    assert (told["max_upload_bytes"], told["max_pixels"], told["max_k"]) == (LIMIT, 10_000, 1000)
