"""Images that would take too much memory are refused before they are decoded, wherever they come."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import Serve, assert_problem, running

SEARCH = "/v1/collections/shop/search"


def grey_png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint16)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def test_an_image_over_the_memory_limit_is_413_and_names_the_setting(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy, max_decode_bytes=2**20)
    large = grey_png(2000)
    for response in (
        client.post(SEARCH, files={"image": large}),
        client.put("/v1/collections/shop/items/x", files={"image": large}),
    ):
        assert "NITAMONO_MAX_DECODE_BYTES" in assert_problem(response, 413, field="image")["detail"]
    assert client.get("/v1/limits").json()["max_decode_bytes"] == 2**20


def test_images_that_do_not_fit_at_once_are_503_with_retry_after(indexed_home: Path) -> None:
    app = create_app(Settings(home=indexed_home, query_log=0))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post(SEARCH, files={"image": grey_png(64)}).status_code == 200
        memory = app.state.service.memory
        with memory.reserve(memory.limit - 2**20):
            response = client.post(SEARCH, files={"image": grey_png(2000)})
        assert_problem(response, 503)
        assert int(response.headers["retry-after"]) >= 1
        assert client.post(SEARCH, files={"image": grey_png(2000)}).status_code == 200
        assert memory.used == 0
