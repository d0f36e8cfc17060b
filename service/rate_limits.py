"""Rate limits of the API: per API key, and per address for requests without a valid key.

Each server process counts for itself, before a request takes a place in a lane and before the database is asked. A key
counts as such once a request with it has been accepted; until then, and for ever if it is unknown, its requests count
for their address, so that guessed keys gain nothing.
"""

from __future__ import annotations

import ipaddress
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import hash_key
from service.errors import RateLimitError
from service.problems import known_problem
from service.rates import Quota, RateLimiter, parse_rate
from service.settings import Settings

LIMITED = "/v1/"  # not the probes, the metrics, the page and its files
IPV6_NETWORK = 64  # bits of an IPv6 address that tell clients apart: one client usually has all addresses of a /64


class RateLimits:
    """Middleware that refuses requests over a rate with 429 and Retry-After, and says what is left of it.

    The headers are those of draft-ietf-httpapi-ratelimit-headers-10: `RateLimit-Policy` has the quota `q` and its
    window `w`, `RateLimit` the remaining requests `r` and the seconds `t` until all are available again.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._limiters = {
            name: RateLimiter(rate)
            for name, text in (("address", settings.rate_limit_address), ("key", settings.rate_limit_key))
            if (rate := parse_rate(text)) is not None
        }
        self._names: dict[str, str] = {}  # of accepted keys, by hash: no more than there are keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED) or not self._limiters:
            await self.app(scope, receive, send)
            return
        sent_hash = _hash_of_key(scope)
        name = self._names.get(sent_hash)
        policy, client = ("address", _network(scope)) if name is None else ("key", name)
        headers: dict[str, str] = {}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        if (limiter := self._limiters.get(policy)) is not None:
            quota = limiter.hit(client, time.monotonic())
            headers = _headers(policy, limiter, quota)
            if quota.retry_after:
                await known_problem(Request(scope), _refusal(policy, limiter, quota))(scope, receive, with_headers)
                return
        await self.app(scope, receive, with_headers)
        accepted = scope.get("state", {}).get("api_key")
        if accepted is not None:
            self._names[sent_hash] = accepted


def _hash_of_key(scope: Scope) -> str:
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    return hash_key(key.strip()) if scheme.lower() == "bearer" else ""


def _network(scope: Scope) -> str:
    """The client's address; of IPv6, its network."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
    return str(address)


def _headers(policy: str, limiter: RateLimiter, quota: Quota) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{policy}";q={limiter.rate.count};w={limiter.rate.seconds}',
        "RateLimit": f'"{policy}";r={quota.remaining};t={quota.reset}',
    }


def _refusal(policy: str, limiter: RateLimiter, quota: Quota) -> RateLimitError:
    whose = "this API key" if policy == "key" else "your address"
    rate = f"{limiter.rate.count} requests in {limiter.rate.seconds} s"
    return RateLimitError(
        quota.retry_after, f"too many requests from {whose}: the limit is {rate}; try again in {quota.retry_after} s"
    )
