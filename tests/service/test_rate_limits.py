"""Rate limits: per address and per key, told in headers, for the API alone."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.catalogue import Catalogue
from service.app import create_app
from service.auth import create_key, rotate_key
from service.errors import SettingsError
from service.rates import Quota, Rate, RateLimiter, parse_rate
from service.settings import Settings, load_settings
from tests.service.conftest import Serve, assert_problem, bearer, running

COLLECTIONS = "/v1/collections"


def statuses(client: httpx.Client, count: int, **headers: str) -> list[int]:
    return [client.get(COLLECTIONS, headers=headers).status_code for _ in range(count)]


def test_an_address_over_its_rate_gets_429_and_is_served_again_after_retry_after(
    serve: Serve, indexed_home: Path
) -> None:
    client = serve(indexed_home, rate_limit_address="20/minute")
    answers = [client.get(COLLECTIONS)]
    while answers[-1].status_code == 200 and len(answers) < 1000:  # a place comes back every 3 s meanwhile
        answers.append(client.get(COLLECTIONS))
    *served, refused = answers
    assert len(served) >= 20
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"address";q=20;w=60'}
    found = [re.fullmatch(r'"address";r=(\d+);t=(\d+)', answer.headers["ratelimit"]) for answer in served]
    left = [int(match[1]) for match in found]
    assert left[0] == 19 and left[-1] == 0 and all(0 <= int(match[2]) <= 60 for match in found)
    detail = assert_problem(refused, 429)["detail"]
    assert "your address: the limit is 20 requests in 60 s" in detail
    assert refused.json()["type"] == "urn:nitamono:problem:rate-limited"
    assert refused.headers["ratelimit"].startswith('"address";r=0;t=')
    wait = int(refused.headers["retry-after"])
    assert 1 <= wait <= 3 and f"in {wait} s" in detail
    time.sleep(wait)
    assert statuses(client, 1) == [200]


def test_probes_metrics_and_the_page_are_not_limited(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home, rate_limit_address="1/day")
    assert statuses(client, 2) == [200, 429]
    for path in ("/healthz", "/metrics", "/", "/static/app.js", "/openapi.json"):
        for _ in range(3):
            answer = client.get(path)
            assert answer.status_code == 200 and "ratelimit" not in answer.headers, path
    assert client.get("/readyz").status_code in (200, 503)


def test_searches_and_writes_are_refused_before_their_bodies_are_read(
    serve: Serve, home_copy: Path, photo: bytes
) -> None:
    client = serve(home_copy, rate_limit_address="1/day")
    assert statuses(client, 1) == [200]
    assert_problem(client.put("/v1/collections/shop/items/new", files={"image": photo}), 429)
    assert_problem(client.post("/v1/collections/shop/search", files={"image": photo}), 429)
    assert_problem(client.delete("/v1/collections/shop/items/bag/0000"), 429)
    assert_problem(client.get("/v1/nowhere"), 429)


def test_a_key_has_a_rate_of_its_own_and_both_its_secrets_share_it(
    serve: Serve, home_copy: Path, catalogue: Catalogue
) -> None:
    client = serve(home_copy, rate_limit_address="3/day", rate_limit_key="4/day")
    keys = {name: create_key(catalogue, name, "read") for name in ("till", "page")}
    for key in keys.values():  # counts for the address once, and then for the key
        assert statuses(client, 6, **bearer(key)) == [200, 200, 200, 200, 200, 429]
    refused = client.get(COLLECTIONS, headers=bearer(keys["till"]))
    assert "this API key: the limit is 4 requests in 86400 s" in assert_problem(refused, 429)["detail"]
    assert refused.headers["ratelimit-policy"] == '"key";q=4;w=86400'
    new = rotate_key(catalogue, "till", overlap=timedelta(hours=1))
    assert statuses(client, 2, **bearer(new)) == [200, 429]  # the address's third, and the key's fifth
    assert statuses(client, 1) == [429]


def test_guessed_keys_count_for_their_address(serve: Serve, home_copy: Path, catalogue: Catalogue) -> None:
    client = serve(home_copy, rate_limit_address="3/day", rate_limit_key="1000/second")
    create_key(catalogue, "till", "read")
    guesses = [client.get(COLLECTIONS, headers=bearer(f"nitamono_{number}")).status_code for number in range(5)]
    assert guesses == [401, 401, 401, 429, 429]


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        ("127.0.0.0/8", [200, 429, 200, 429, 200, 200, 429]),  # the fifth and the last are of one IPv6 network
        ("", [200, 429, 429, 429, 429, 429, 429]),
    ],
)
def test_addresses_are_those_that_trusted_proxies_forward(
    trusted: str, expected: list[int], indexed_home: Path
) -> None:
    app = create_app(Settings(home=indexed_home, query_log=0, rate_limit_address="1/day"))
    clients = ("203.0.113.9",) * 2 + ("203.0.113.10",) * 2 + ("2001:db8::1", "2001:db8:0:1::1", "2001:db8::2")
    with running(app, trusted_proxies=trusted) as url:
        found = [httpx.get(url + COLLECTIONS, headers={"X-Forwarded-For": each}).status_code for each in clients]
    assert found == expected


def test_without_a_setting_nothing_is_limited(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home)
    assert statuses(client, 50) == [200] * 50
    assert "ratelimit" not in client.get(COLLECTIONS).headers


def test_the_access_log_names_the_key_and_never_its_secret(
    home_copy: Path, catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    key = create_key(catalogue, "till", "read")
    app = create_app(Settings(home=home_copy, query_log=0))
    with caplog.at_level(logging.INFO, "nitamono.access"), running(app) as url:
        assert httpx.get(url + COLLECTIONS, headers=bearer(key)).status_code == 200
        assert httpx.get(url + COLLECTIONS).status_code == 200
    records = [vars(record) for record in caplog.records if record.name == "nitamono.access"]
    assert [record["key"] for record in records] == ["till", None]
    assert key not in json.dumps(records, default=str)


@pytest.mark.parametrize("value", ["many", "0/minute", "5 per minute", "5/fortnight", "-1/day", "1e3/day", "٣/day"])
def test_a_wrong_rate_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NITAMONO_RATE_LIMIT_KEY", value)
    with pytest.raises(SettingsError, match="^NITAMONO_RATE_LIMIT_KEY: .* such as 600/minute"):
        load_settings()


def test_a_rate_is_kept_exactly_over_time() -> None:
    limiter = RateLimiter(Rate(3, 60))
    assert [limiter.hit("a", 100.0) for _ in range(4)] == [
        Quota(2, 20, 0), Quota(1, 40, 0), Quota(0, 60, 0), Quota(0, 60, 20),
    ]  # fmt: skip
    assert limiter.hit("b", 100.0) == Quota(2, 20, 0)
    assert limiter.hit("a", 119.9).retry_after == 1
    assert limiter.hit("a", 120.0) == Quota(0, 60, 0)  # refused requests cost nothing
    assert limiter.hit("a", 1000.0) == Quota(2, 20, 0)
    steady = RateLimiter(Rate(7, 3600))
    for number in range(1000):  # seven at once, and then one each 3600 / 7 s, whatever floats make of that
        assert steady.hit("a", 1e6 + max(0, number - 6) * 3600 / 7).retry_after == 0, number


def test_the_number_of_remembered_clients_is_bounded() -> None:
    limiter = RateLimiter(Rate(1, 60), max_clients=100)
    for number in range(1000):
        limiter.hit(str(number), 0.0)
    assert len(limiter._whole_at) == 100
    assert limiter.hit("999", 1.0).retry_after == 59


def test_rates_are_parsed() -> None:
    assert [parse_rate(text) for text in ("", " ", "600/minute", "5/SECOND ")] == [
        None,
        None,
        Rate(600, 60),
        Rate(5, 1),
    ]
