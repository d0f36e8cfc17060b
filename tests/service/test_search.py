"""Searching over HTTP gives what the Searcher gives, whichever way it is asked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.records import Rerank
from indexer.search.regions import Region
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from tests.service.conftest import ITEMS, assert_problem

SEARCH = "/v1/collections/shop/search"


@pytest.fixture(scope="module")
def searcher(indexed_home: Path) -> Iterator[Searcher]:
    with Home.open(indexed_home) as home:
        opened = Searcher(home)
        yield opened
        opened.close()


def upload(client: httpx.Client, photo: bytes, **form: Any) -> dict[str, Any]:
    response = client.post(SEARCH, files={"image": ("query.jpg", photo)}, data=form)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def assert_same(answer: dict[str, Any], page: SearchPage) -> None:
    assert (answer["generation"], answer["encoder_id"], answer["total"]) == (
        page.generation,
        page.encoder_id,
        page.total,
    )
    assert [hit["item_id"] for hit in answer["results"]] == [hit.item_id for hit in page.results]
    np.testing.assert_allclose(
        [hit["score"] for hit in answer["results"]], [hit.score for hit in page.results], atol=1e-6
    )


def test_an_upload_finds_what_the_searcher_finds(client: httpx.Client, searcher: Searcher, photo: bytes) -> None:
    answer = upload(client, photo, k="7")
    assert_same(answer, searcher.search_image("shop", photo, k=7))
    assert len(answer["results"]) == 7
    assert answer["took_ms"] > 0


def test_a_result_says_what_a_page_needs(client: httpx.Client, photo: bytes) -> None:
    hit = upload(client, photo, k="1")["results"][0]
    assert hit["title"]
    assert set(hit["attributes"]) == {"category", "colour"}
    assert client.get(hit["image_url"]).headers["content-type"] == "image/jpeg"


def test_base64_json_equals_the_upload(client: httpx.Client, photo: bytes) -> None:
    body = {"image_base64": base64.b64encode(photo).decode(), "k": 9, "filter": {"category": "hat"}}
    answer = client.post(SEARCH, json=body).json()
    form = upload(client, photo, k="9", filter=["category=hat"])
    assert answer["results"] == form["results"]


def test_a_region_is_searched_instead_of_the_whole(client: httpx.Client, searcher: Searcher, photo: bytes) -> None:
    region = Region(0.25, 0.1, 0.5, 0.6)
    page = searcher.search_image("shop", photo, k=5, region=region)
    answer = upload(client, photo, k="5", region="0.25,0.1,0.5,0.6")
    assert_same(answer, page)
    body = {"image_base64": base64.b64encode(photo).decode(), "k": 5, "region": [0.25, 0.1, 0.5, 0.6]}
    assert_same(client.post(SEARCH, json=body).json(), page)
    whole = upload(client, photo, k="5")
    assert [hit["score"] for hit in whole["results"]] != [hit["score"] for hit in answer["results"]]


@pytest.mark.parametrize("rerank", ["expand", "reciprocal"])
def test_every_search_takes_a_second_stage(
    client: httpx.Client, searcher: Searcher, photo: bytes, rerank: Rerank
) -> None:
    page = searcher.search_image("shop", photo, k=9, rerank=rerank)
    assert_same(upload(client, photo, k="9", rerank=rerank), page)
    body = {"image_base64": base64.b64encode(photo).decode(), "k": 9, "rerank": rerank}
    assert_same(client.post(SEARCH, json=body).json(), page)
    item = page.results[0].item_id
    similar = client.get(f"/v1/collections/shop/items/{item}/similar", params={"k": 9, "rerank": rerank}).json()
    assert_same(similar, searcher.search_item("shop", item, k=9, rerank=rerank))
    refused = client.post(SEARCH, json=body | {"rerank": "best"})
    assert refused.status_code == 422 and "rerank" in refused.text


def test_a_vector_is_searched(client: httpx.Client, searcher: Searcher) -> None:
    vector = np.random.default_rng(4).normal(size=16 * 16 * 3).tolist()
    answer = client.post(SEARCH, json={"vector": vector, "k": 4}).json()
    assert_same(answer, searcher.search_vector("shop", vector, k=4))


def test_similar_to_an_item_with_a_slash_in_its_id(client: httpx.Client, searcher: Searcher) -> None:
    page = searcher.search_item("shop", "bag/0003", k=6)
    assert "bag/0003" not in [hit.item_id for hit in page.results]
    for path in ("bag/0003/similar", "bag%2F0003/similar"):
        answer = client.get(f"/v1/collections/shop/items/{path}", params={"k": 6})
        assert answer.status_code == 200
        assert_same(answer.json(), page)
    assert_same(client.post(SEARCH, json={"item_id": "bag/0003", "k": 6}).json(), page)


def test_all_photos_of_an_item_take_part(client: httpx.Client) -> None:
    last = f"mug/{ITEMS - 1:04d}"
    item = client.get(f"/v1/collections/shop/items/{last}").json()
    assert len(item["images"]) == 2
    for image in item["images"]:
        data = client.get(image["image_url"], params={"width": 2048}).content
        assert upload(client, data, k="1")["results"][0]["item_id"] == last


def test_pages_join_to_the_whole_ranking(client: httpx.Client, photo: bytes) -> None:
    whole = upload(client, photo, k=str(ITEMS))["results"]
    pages = [upload(client, photo, k="8", offset=str(offset))["results"] for offset in range(0, ITEMS, 8)]
    assert [hit["item_id"] for page in pages for hit in page] == [hit["item_id"] for hit in whole]
    assert len({hit["item_id"] for hit in whole}) == ITEMS
    assert upload(client, photo, k="8", offset="500")["results"] == []


def test_filters_keep_all_that_pass_and_nothing_else(client: httpx.Client, photo: bytes) -> None:
    answer = upload(client, photo, k="100", filter=["category=mug", "colour=teal"])
    found = {hit["item_id"] for hit in answer["results"]}
    expected = {f"mug/{n:04d}" for n in range(ITEMS) if n % 3 == 2 and n % 8 == 3}
    assert found == expected
    assert answer["total"] == len(expected)
    query = {"k": 100, "filter": ["category=mug", "colour=teal"]}
    similar = client.get("/v1/collections/shop/items/bag/0000/similar", params=query).json()
    assert {hit["item_id"] for hit in similar["results"]} == expected


def test_a_filter_that_nothing_passes_gives_an_empty_page(client: httpx.Client, photo: bytes) -> None:
    answer = upload(client, photo, filter=["category=chair"])
    assert (answer["results"], answer["total"]) == ([], 0)


def test_an_unknown_item_or_collection_is_not_found(client: httpx.Client, photo: bytes) -> None:
    for item_id in ("bag/9999", "similar", "../../etc/passwd"):
        path = f"/v1/collections/shop/items/{quote(item_id, safe='')}/similar"
        assert item_id in assert_problem(client.get(path), 404)["detail"]
    response = client.post("/v1/collections/nowhere/search", files={"image": photo})
    assert "shop" in assert_problem(response, 404)["detail"]
