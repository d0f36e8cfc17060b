"""Host names: a page on a foreign name that resolves to this machine reaches nothing (DNS rebinding)."""

from __future__ import annotations

import logging
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
import yaml

from service.app import create_app
from service.errors import SettingsError
from service.serve import answering_to, to_environment
from service.settings import Settings, load_settings
from tests.service.conftest import Serve, assert_problem, running

ITEM = "/v1/collections/shop/items/bag/0000"
FOREIGN = (
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.nip.io",
    "localhost.evil.example",
    "evil.localhost.example",
    "notlocalhost",
    "2130706433",
    "127.1",
    "0x7f.1",
    "[evil]",
    "",
)
OWN = ("127.0.0.1", "10.2.3.4:8080", "[::1]:8080", "[fe80::1]", "localhost", "LOCALHOST:1", "localhost.", "a.localhost")


def with_host(host: str) -> dict[str, str]:
    return {"Host": host}


def test_a_page_on_a_foreign_name_deletes_nothing(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    for method, path in (("DELETE", ITEM), ("GET", ITEM), ("GET", "/"), ("GET", "/healthz"), ("GET", "/static/app.js")):
        refused = client.request(method, path, headers=with_host("evil.example:8080"))
        detail = assert_problem(refused, 421)["detail"]
        assert "'evil.example:8080'" in detail and "NITAMONO_ALLOWED_HOSTS" in detail
        assert "content-security-policy" in refused.headers
    assert client.get(ITEM).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names_are_refused(host: str, client: httpx.Client) -> None:
    assert client.get("/healthz", headers=with_host(host)).status_code == 421


@pytest.mark.parametrize("host", OWN)
def test_addresses_and_loopback_names_are_accepted(host: str, client: httpx.Client) -> None:
    assert client.get("/healthz", headers=with_host(host)).status_code == 200


def test_each_of_several_host_headers_must_be_allowed(client: httpx.Client) -> None:
    with closing(HTTPConnection("127.0.0.1", client.base_url.port or 0, timeout=10)) as connection:
        connection.putrequest("GET", "/healthz", skip_host=True)
        connection.putheader("Host", "localhost")
        connection.putheader("Host", "evil.example")
        connection.endheaders()
        assert connection.getresponse().status == 421


def test_names_are_allowed_by_the_setting(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home, allowed_hosts="nitamono, Shop.Example,*.inner.example")
    for host in ("nitamono:8080", "shop.example", "a.inner.example", "localhost"):
        assert client.get("/healthz", headers=with_host(host)).status_code == 200, host
    for host in ("inner.example", "www.shop.example", "evil.example", "ainner.example"):
        assert client.get("/healthz", headers=with_host(host)).status_code == 421, host


def test_any_name_is_allowed_by_a_star(serve: Serve, indexed_home: Path) -> None:
    client = serve(indexed_home, allowed_hosts="*")
    assert client.get("/healthz", headers=with_host("anything.example")).status_code == 200


@pytest.mark.parametrize("value", ["https://shop.example", "shop.example:8080", "a b", "*.*", "shop.example\n x"])
def test_a_wrong_allow_list_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NITAMONO_ALLOWED_HOSTS", value)
    with pytest.raises(SettingsError, match="^NITAMONO_ALLOWED_HOSTS: .* is not a host name"):
        load_settings()


def test_the_bound_name_is_allowed_and_reaches_the_workers() -> None:
    settings = answering_to(Settings(allowed_hosts="shop.example"), "myserver.lan")
    assert to_environment(settings)["NITAMONO_ALLOWED_HOSTS"] == "shop.example,myserver.lan"
    for address in ("0.0.0.0", "::"):  # noqa: S104
        assert "*" not in answering_to(Settings(), address).allowed_hosts


def test_compose_allows_the_name_that_prometheus_uses() -> None:
    docker = Path(__file__).parents[2] / "docker"
    service = yaml.safe_load((docker / "compose.yaml").read_text())["services"]["nitamono"]
    allowed = service["environment"]["NITAMONO_ALLOWED_HOSTS"].removeprefix("${NITAMONO_ALLOWED_HOSTS:-").rstrip("}")
    (target,) = yaml.safe_load((docker / "monitoring" / "prometheus.yml").read_text())["scrape_configs"][0][
        "static_configs"
    ][0]["targets"]
    assert target.partition(":")[0] in allowed.split(",")


@pytest.mark.parametrize(
    ("trusted", "client"), [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.9"), ("10.0.0.1", "127.0.0.1")]
)
def test_x_forwarded_for_is_believed_from_configured_proxies_only(
    trusted: str, client: str, indexed_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(home=indexed_home, query_log=0))
    with caplog.at_level(logging.INFO, "nitamono.access"), running(app, trusted_proxies=trusted) as url:
        assert httpx.get(f"{url}/healthz", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 200
    assert [record.__dict__["client"] for record in caplog.records if record.name == "nitamono.access"] == [client]


def test_a_wrong_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NITAMONO_TRUSTED_PROXIES", "proxy.example")
    with pytest.raises(SettingsError, match="^NITAMONO_TRUSTED_PROXIES: 'proxy.example' is invalid"):
        load_settings()
