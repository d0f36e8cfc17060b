"""Middleware for every request: request id, security headers, access log and metrics."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

access = logging.getLogger("nitamono.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestContext:
    """Gives each request an id (the caller's or a new one); logs and counts it once the response is complete."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, sent, begin = 500, 0, time.perf_counter()
        accounted = False

        def account() -> None:
            nonlocal accounted
            if not accounted:
                accounted = True
                self._account(scope, status, sent, time.perf_counter() - begin)

        async def with_headers(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                add_headers(MutableHeaders(scope=message), request_id)
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                # Before the last part is sent, so that a client with a complete response finds it in the metrics.
                account()
            await send(message)

        try:
            await self.app(scope, receive, with_headers)
        finally:
            account()

    def _account(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        # Labels come from the routes only, so that a client cannot create new ones.
        matched = scope.get("route")
        route = matched.path if isinstance(matched, Route) else "other"
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.observe_request(method, route, status, seconds)
        access.info(
            "request",
            extra={
                "request_id": scope["state"]["request_id"],
                "client": (scope.get("client") or ("", 0))[0],
                "key": scope["state"].get("api_key"),
                "method": scope["method"],
                "path": scope["path"],
                "route": route,
                "status": status,
                "bytes": sent,
                "ms": round(seconds * 1000, 1),
            },
        )


def request_id_of(scope: Scope) -> str | None:
    """The id that `RequestContext` gave the request."""
    request_id: str | None = scope.get("state", {}).get("request_id")
    return request_id


def add_headers(headers: MutableHeaders, request_id: str) -> None:
    """Add the headers of every response."""
    headers["X-Request-ID"] = request_id
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
