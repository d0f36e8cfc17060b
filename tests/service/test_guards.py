"""Requests that must reach nothing: foreign host names, control characters in paths, extreme regions, revoked keys."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.catalogue.engine import create_engine
from indexer.catalogue.home import Home
from indexer.errors import IndexerError, InvalidRequestError
from service.auth import create_key
from service.guards import host_name, matches
from tests.service.conftest import Serve, assert_problem

ITEM = "/v1/collections/shop/items/bag/0000"
LIST = "/v1/collections"


def ask(client: httpx.Client, host: str, method: str = "GET", path: str = LIST) -> httpx.Response:
    return client.request(method, path, headers={"Host": host})


@pytest.fixture
def home(home_copy: Path) -> Iterator[Home]:
    with Home.open(home_copy) as opened:
        yield opened


def test_a_foreign_host_name_deletes_nothing_on_a_keyless_server(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "10.0.0.9", ""):
        assert "NITAMONO_ALLOWED_HOSTS" in assert_problem(ask(client, host, "DELETE", ITEM), 421)["detail"]
    for host in ("localhost", "LOCALHOST:80", "localhost.", "127.0.0.1:9", "127.8.8.8", "[::1]:8080"):
        assert ask(client, host).status_code == 200, host
    assert client.get(ITEM).status_code == 200


def test_a_setting_allows_further_names(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home, allowed_hosts="shop.example, *.pets.example")
    for host in ("shop.example", "SHOP.example:443", "a.pets.example", "localhost"):
        assert ask(client, host).status_code == 200, host
    for host in ("pets.example", "evilpets.example", "shop.example.evil", "192.0.2.1"):
        assert_problem(ask(client, host), 421)
    assert ask(serve(indexed_home, allowed_hosts="*"), "any.example").status_code == 200


def test_behind_a_wildcard_address_keys_or_an_address_open_other_names(
    serve: Serve, home_copy: Path, home: Home
) -> None:
    client = serve(home_copy, host="0.0.0.0")  # noqa: S104
    assert ask(client, "192.0.2.1:8080").status_code == 200
    assert_problem(ask(client, "shop.example"), 421)
    create_key(home.catalogue, "till", "write")
    assert ask(client, "shop.example").status_code == 200


def test_two_hosts_are_refused_and_probes_need_no_name(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home)
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
    connection.putrequest("GET", LIST, skip_host=True)
    for host in ("localhost", "evil.example"):
        connection.putheader("Host", host)
    connection.endheaders()
    assert connection.getresponse().status in (400, 421)
    connection.close()
    assert ask(client, "10.1.2.3:8080", path="/healthz").status_code == 200


def test_names_are_compared_whole() -> None:
    assert host_name("[FE80::1]:80") == "fe80::1"
    assert not matches("xshop.example", ["*.shop.example", "shop.example"])


@pytest.mark.parametrize("character", ["%0A", "%0D%0A", "%00", "%7F", "%C2%85"])
def test_a_control_character_in_a_path_reaches_no_item(serve: Serve, home_copy: Path, character: str) -> None:
    client = serve(home_copy)
    for path in (ITEM, "/v1/collections/shop", f"{ITEM}/similar", "/v1/collections/shop/images/1", "/healthz", "/"):
        method = "DELETE" if path == ITEM else "GET"
        assert "control character" in assert_problem(client.request(method, path + character), 422)["detail"]
    assert client.get(ITEM).status_code == 200


@pytest.mark.parametrize("text", ["%2F", "%EF%BC%91", "%D9%A1", "%E2%80%A8", "%FF", "%20"])
def test_other_characters_after_a_parameter_are_never_another_item(client: httpx.Client, text: str) -> None:
    for path in (ITEM, "/v1/collections/shop", "/v1/collections/shop/images/1"):
        assert client.get(path + text).status_code in (307, 404, 422), path


SIDES = st.one_of(st.floats(0, 1), st.floats(), st.integers(), st.sampled_from([1e-12, 5e-324, 0.999999999, 1e308]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(region=st.tuples(SIDES, SIDES, SIDES, SIDES))
def test_no_region_is_a_server_error(client: httpx.Client, photo: bytes, region: tuple[float, ...]) -> None:
    sent = {"region": ",".join(map(str, region)), "k": "1"}
    answer = client.post("/v1/collections/shop/search", files={"image": photo}, data=sent)
    assert answer.status_code in (200, 422), answer.text


@pytest.mark.parametrize("region", ["0.999999999,0.99999999,1e-12,1e-12", "0,0,5e-324,5e-324"])
def test_a_tiny_region_is_searched(client: httpx.Client, photo: bytes, region: str) -> None:
    answer = client.post("/v1/collections/shop/search", files={"image": photo}, data={"region": region})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("number", ["1e400", "-1", "1" + "0" * 30, "9" * 5000, "NaN", "Infinity", "1e-12", "null"])
def test_no_number_is_a_server_error(client: httpx.Client, number: str) -> None:
    for field in ("k", "offset", "vector"):
        value = f"[{number}]" if field == "vector" else number
        body = '{"vector": [1.0], "k": 1}' if field == "offset" else "{}"
        text = (
            json.dumps({**json.loads(body)})[:-1].rstrip("{") + ("," if body != "{}" else "") + f'"{field}": {value}}}'
        )
        text = text if text.startswith("{") else "{" + text
        answer = client.post("/v1/collections/shop/search", content=text, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, (field, answer.text)
    for path in (
        f"{ITEM}/similar?k={number}",
        f"{ITEM}/similar?offset={number}",
        f"{LIST}/shop/images/1?width={number}",
    ):
        assert client.get(path).status_code == 422, path


def test_a_key_revoked_while_an_upload_arrives_stores_nothing(
    serve: Serve, home_copy: Path, home: Home, photo: bytes
) -> None:
    client = serve(home_copy)
    key = create_key(home.catalogue, "till", "write")
    request = client.build_request("PUT", f"{LIST}/shop/items/late", files={"image": photo})
    body = request.read()
    connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
    connection.putrequest("PUT", request.url.path)
    for name, value in {"Authorization": f"Bearer {key}", "Content-Type": request.headers["content-type"]}.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[:100])
    client.get("/healthz")
    home.catalogue.keys.revoke("till")
    connection.send(body[100:])
    assert connection.getresponse().status == 401
    connection.close()
    assert client.get(f"{LIST}/shop/items/late").status_code == 404


def test_once_keys_exist_probes_tell_only_the_state(serve: Serve, home_copy: Path, home: Home) -> None:
    client = serve(home_copy)
    while client.get("/readyz").status_code == 503:
        pass
    assert client.get("/readyz").json()["collections"]
    key = {"Authorization": "Bearer " + create_key(home.catalogue, "probe", "read")}
    assert client.get("/readyz").json() == {"status": "ready", "collections": []}
    assert client.get("/readyz", headers=key).json()["collections"]
    assert "NITAMONO_PUBLIC_METRICS" in assert_problem(client.get("/metrics"), 401)["detail"]
    assert client.get("/metrics", headers=key).status_code == 200
    assert serve(home_copy, public_metrics=True).get("/metrics").status_code == 200


def test_a_picture_varies_with_the_key(client: httpx.Client) -> None:
    answer = client.get(f"{LIST}/shop/images/1")
    assert answer.headers["vary"] == "Authorization"
    assert answer.headers["cache-control"].startswith("public")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31m", "x" * 65, " till"])
def test_a_key_needs_a_printable_name(home: Home, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="1 to 64 printable characters"):
        create_key(home.catalogue, name, "read")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@host:port/name",
        "postgresql+psycopg://user:hun@ter2@host/name",
        "postgresql:/user:hunter2@host/name",
        "user:hunter2@host/name",
        "nosuch://user:hunter2@host/name",
        "postgresql+hunter2",
        "://:hunter2@",
    ],
)
def test_no_database_url_prints_its_password(url: str) -> None:
    with pytest.raises(IndexerError) as caught:
        create_engine(url)
    assert "ter2" not in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
