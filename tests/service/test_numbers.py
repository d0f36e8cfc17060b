"""Numbers of requests: whatever they are, the answer is a result or names the fault, never a server error."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

URL = "/v1/collections/shop"
EDGES = (0.0, -0.0, 1e-12, 1e-300, 5e-324, 1e-6, 0.5, 0.99999999, 0.999999999, 1.0, 1.0000001, -1e-12, 1e300)
ODD = (*EDGES, float("nan"), float("inf"), float("-inf"), 10**400, -(10**400), 2**63, -(2**63) - 1, 1e999)
WORDS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "1e-400",
    "9" * 5000,
    "0x10",
    "1_0",
    "٣",
    "",
    " 1",
    "1e3",
    "-0",
    "true",
    "½",
    "1,5",
)
CHECKED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
regions = st.lists(st.sampled_from(EDGES) | st.floats(0, 1), min_size=4, max_size=4)
numbers = st.sampled_from(ODD) | st.integers() | st.floats()
words = st.sampled_from(WORDS) | st.integers().map(str) | st.floats().map(str)


def assert_no_server_error(response: httpx.Response) -> None:
    assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json" and "Traceback" not in response.text


def post_json(client: httpx.Client, photo: bytes, **fields: Any) -> httpx.Response:
    body = json.dumps({"image_base64": base64.b64encode(photo).decode(), "k": 1, **fields})
    return client.post(f"{URL}/search", content=body, headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    "region", [[0.999999999, 0.99999999, 1e-12, 1e-12], [0, 0, 1e-12, 1e-12], [0.5, 0.5, 5e-324, 1e-9]]
)
def test_a_region_with_tiny_sides_is_one_pixel(client: httpx.Client, photo: bytes, region: list[float]) -> None:
    for find_items in (False, True):
        response = post_json(client, photo, region=region, find_items=find_items)
        assert response.status_code == 200, response.text
    text = ",".join(map(repr, region))
    assert client.post(f"{URL}/search", files={"image": photo}, data={"region": text}).status_code == 200


@CHECKED
@given(region=regions)
def test_every_region_of_fractions(client: httpx.Client, photo: bytes, region: list[float]) -> None:
    assert_no_server_error(post_json(client, photo, region=region))
    form = {"region": ",".join(map(repr, region)), "k": "1"}
    assert_no_server_error(client.post(f"{URL}/search", files={"image": photo}, data=form))


@CHECKED
@given(k=numbers, offset=numbers, region=st.lists(numbers, max_size=5), vector=st.lists(numbers, max_size=3))
def test_odd_numbers_in_json(client: httpx.Client, photo: bytes, k: Any, offset: Any, region: Any, vector: Any) -> None:
    for fields in ({"k": k}, {"offset": offset}, {"region": region}):
        assert_no_server_error(post_json(client, photo, **fields))
    assert_no_server_error(post_json(client, photo, image_base64=None, vector=vector))


@CHECKED
@given(word=words)
def test_odd_numbers_in_forms_and_queries(client: httpx.Client, photo: bytes, word: str) -> None:
    for form in ({"k": word}, {"offset": word}, {"region": f"0,0,1,{word}"}, {"find_items": word}):
        assert_no_server_error(client.post(f"{URL}/search", files={"image": photo}, data=form))
    for path in ("items/bag/0000/similar?k=", "items/bag/0000/similar?offset=", "images/1?width=", "images/"):
        assert_no_server_error(client.get(f"{URL}/{path}{word}"))


@pytest.mark.parametrize("value", [1e300, 1e-300, 1e39, -1e39, 3.4e38])
def test_vectors_with_extreme_values(client: httpx.Client, value: float) -> None:
    dim = client.get("/v1/generations").json()["generations"][0]["dim"]
    assert_no_server_error(client.post(f"{URL}/search", json={"vector": [value] * dim}))


def test_whole_numbers_of_json_may_have_a_fraction_of_zero(client: httpx.Client, photo: bytes) -> None:
    """JSON Schema counts 3.0 among the integers, and some languages write them so."""
    found = post_json(client, photo, k=3.0, offset=1.0)
    assert (found.status_code, len(found.json()["results"]), found.json()["offset"]) == (200, 3, 1)
    for k in (3.5, True, "3", 1e300):
        assert post_json(client, photo, k=k).status_code == 422
