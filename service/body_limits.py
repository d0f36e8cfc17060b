"""Limits of request bodies as they arrive: bytes of one, bytes of all together, and time."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import OverloadedError, RequestTimeoutError, TooLargeError

JSON_COPIES = 3  # the body, its base64 text and the decoded bytes
SLOWEST = 16 * 1024  # bytes per second that a body may arrive with at the least, after the time-out


class BodyLimit:
    """Refuses bodies that are too large, by declared length or as soon as too many bytes have arrived, or too slow.

    Args:
        max_bytes: of one body.
        max_total: of the bodies of all requests in progress, as they take memory; more are refused with 503.
        seconds: in which a body must arrive, and one more for each `SLOWEST` bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_total: int, seconds: float) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_total = max(max_total, JSON_COPIES * max_bytes)
        self.seconds = seconds
        self.total = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, Headers(scope=scope), receive)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.total -= body.held


class _Body:
    """One body as it arrives."""

    def __init__(self, limit: BodyLimit, headers: Headers, receive: Receive) -> None:
        declared = headers.get("content-length", "")
        self._declared = int(declared) if declared.isdecimal() else 0
        self._copies = JSON_COPIES if "json" in headers.get("content-type", "").lower() else 1
        self._limit = limit
        self._receive = receive
        self._received = 0
        self._complete = False
        self._began = time.monotonic()
        self.held = 0

    async def receive(self) -> Message:
        # Errors are raised while the app reads, so that they become problem documents like any other.
        if self._complete:
            return await self._receive()
        if self._declared > self._limit.max_bytes:
            raise self._too_large(f"{self._declared} bytes")
        message = await self._in_time()
        count = len(message.get("body", b""))
        self._received += count
        if self._received > self._limit.max_bytes:
            raise self._too_large(f"more than {self._limit.max_bytes} bytes")
        self._hold(count * self._copies)
        self._complete = not message.get("more_body", False)
        return message

    async def _in_time(self) -> Message:
        deadline = self._began + self._limit.seconds + self._received / SLOWEST
        try:
            return await asyncio.wait_for(self._receive(), max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise RequestTimeoutError(
                f"only {self._received} bytes of the request arrived in {self._limit.seconds:g} s and at "
                f"{SLOWEST} bytes per second after that; send it faster (setting NITAMONO_BODY_TIMEOUT)"
            ) from None

    def _hold(self, count: int) -> None:
        if self._limit.total + count > self._limit.max_total:
            raise OverloadedError("the server is busy: too many large requests are arriving; try again in a moment")
        self._limit.total += count
        self.held += count

    def _too_large(self, size: str) -> TooLargeError:
        return TooLargeError(f"the request has {size}; the limit is {self._limit.max_bytes} bytes")
