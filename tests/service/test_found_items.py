"""The items of a query photo over HTTP: each is a region that can be searched with."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import finding
from tests.service.conftest import Serve, assert_problem


@pytest.fixture
def shop(serve: Serve, tmp_path: Path) -> httpx.Client:
    return serve(finding.shop_that_finds(tmp_path))


def search(client: httpx.Client, image: bytes, **form: Any) -> dict[str, Any]:
    answer = client.post("/v1/collections/shop/search", files={"image": image}, data=form)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_item_of_a_photo_is_told_and_can_be_searched_with(shop: httpx.Client) -> None:
    told = search(shop, finding.several(), find_items=True)["regions"]
    assert len(told) == len(finding.SEVERAL)
    width, height = finding.SEVERAL_SIZE
    middles = sorted(((x + w / 2) * width, (y + h / 2) * height) for x, y, w, h in (item["region"] for item in told))
    expected = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in finding.SEVERAL]
    for middle, wanted in zip(middles, expected, strict=True):
        assert middle == pytest.approx(wanted, abs=6)
    for item in told:
        answer = search(shop, finding.several(), find_items="true", region=",".join(map(str, item["region"])))
        assert answer["used"] == {"region": item["region"], "chosen_by": "request", "confidence": None}
        assert answer["regions"] == told


def test_one_item_is_told_and_none_without_a_photo(shop: httpx.Client) -> None:
    answer = search(shop, finding.photo(100, 30), find_items=True)
    (item,) = answer["regions"]
    assert 0.3 <= item["confidence"] <= 1
    found = answer["results"][0]["item_id"]
    by_item = shop.post("/v1/collections/shop/search", json={"item_id": found})
    assert by_item.json()["regions"] is None and by_item.json()["used"] is None
    assert search(shop, finding.several())["regions"] is None


def test_items_are_found_in_images_only(shop: httpx.Client) -> None:
    image = base64.b64encode(finding.several()).decode()
    by_json = shop.post("/v1/collections/shop/search", json={"image_base64": image, "find_items": True})
    assert len(by_json.json()["regions"]) == len(finding.SEVERAL)
    refused = shop.post("/v1/collections/shop/search", json={"item_id": "0.png", "find_items": True})
    assert "find_items needs an uploaded image" in assert_problem(refused, 422, field="body")["detail"]
