"""Admission of requests: few run at once, few wait, and the rest are refused at once.

Each kind of request has a lane of its own, so that writers that wait for the database do not hold up searches, and
neither holds up the page. A request takes a place in its lane when its body has arrived: a client that sends slowly
holds nobody up. It gives the place back when its response begins: neither does a client that reads slowly.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import OverloadedError
from service.metrics import Metrics
from service.problems import known_problem
from service.settings import Settings

READ_THREADS, READ_WAITING = 4, 64  # items, images, collections and the files of the page: cheap, and many at once
WRITE_WAITING = 32  # writers are few, and prefer a wait to sending their photos again
METRICS_THREADS, METRICS_WAITING = 2, 16
SPARE_THREADS = 8  # for checks of API keys, which precede the body
PATIENCE = 5.0  # seconds that a request waits in its lane
PROBES = frozenset({"/healthz", "/readyz"})  # these wait for nobody
BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class Lane:
    """Requests of one kind: at most `threads` run and `waiting` wait."""

    def __init__(self, name: str, threads: int, waiting: int, metrics: Metrics) -> None:
        self.name = name
        self._metrics = metrics
        self.threads = threads
        self.capacity = threads + waiting
        self.busy = 0  # requests that run or wait; those whose body is still arriving do not count
        self.running = 0
        self.waiting = 0
        self._places = asyncio.Semaphore(threads)
        self._report()

    def refuse_if_full(self) -> None:
        if self.busy >= self.capacity:
            raise OverloadedError(
                f"the server is busy: {self.threads} {self.name} requests are running and "
                f"{self.capacity - self.threads} are waiting; try again in a moment"
            )

    async def enter(self) -> None:
        """Wait for a place; `OverloadedError` if none is free for `PATIENCE` seconds."""
        self.waiting += 1
        self._report()
        try:
            await asyncio.wait_for(self._places.acquire(), PATIENCE)
            self.running += 1
        except TimeoutError:
            raise OverloadedError(f"the server is busy: the request waited {PATIENCE:g} s; try again later") from None
        finally:
            self.waiting -= 1
            self._report()

    def leave(self) -> None:
        self.running -= 1
        self._places.release()
        self._report()

    def _report(self) -> None:
        self._metrics.set_lane(self.name, self.running, self.waiting)


class Admission:
    """Middleware that admits requests to their lanes; those that do not fit get 503 with Retry-After."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self._count_refusal = metrics.count_refusal
        self.search = Lane("search", settings.request_threads, settings.request_queue, metrics)
        self.write = Lane("write", settings.write_threads, WRITE_WAITING, metrics)
        self.read = Lane("read", READ_THREADS, READ_WAITING, metrics)
        self.metrics = Lane("metrics", METRICS_THREADS, METRICS_WAITING, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (lane := self.lane_of(scope["method"], scope["path"])) is None:
            await self.app(scope, receive, send)
            return
        visit = _Visit(lane, receive, send)
        try:
            lane.refuse_if_full()
            lane.busy += 1
            try:
                if scope["method"] in BODILESS:
                    await visit.take_place()
                await self.app(scope, visit.receive, visit.send)
            finally:
                visit.give_place_back()
                lane.busy -= 1
        except OverloadedError as exc:  # raised here, outside the app: the app turns its own into responses itself
            self._count_refusal(lane.name)
            await known_problem(Request(scope), exc)(scope, receive, send)

    def lane_of(self, method: str, path: str) -> Lane | None:
        """The lane of a request; None for the probes."""
        if path in PROBES:
            return None
        if path == "/metrics":
            return self.metrics
        if path.startswith("/v1/"):
            if method not in ("GET", "HEAD", "POST", "OPTIONS"):
                return self.write
            if method == "POST" or path.endswith("/similar"):
                return self.search
        return self.read


class _Visit:
    """One request in a lane."""

    def __init__(self, lane: Lane, receive: Receive, send: Send) -> None:
        self._lane = lane
        self._receive = receive
        self._send = send
        self._holds_place = False
        self._body_arrived = False

    async def take_place(self) -> None:
        await self._lane.enter()
        self._holds_place = self._body_arrived = True

    def give_place_back(self) -> None:
        if self._holds_place:
            self._holds_place = False
            self._lane.leave()

    async def receive(self) -> Message:
        """The next part of the body; with the last one comes a place in the lane."""
        if self._body_arrived:
            return await self._receive()
        self._lane.busy -= 1
        try:
            message = await self._receive()
        finally:
            self._lane.busy += 1
        if message["type"] == "http.request" and not message.get("more_body", False):
            # The lane may have filled while the body arrived; this request counts itself.
            if self._lane.busy > self._lane.capacity:
                raise OverloadedError("the server is busy: too many requests are waiting; try again in a moment")
            await self.take_place()
        return message

    async def send(self, message: Message) -> None:
        self.give_place_back()
        await self._send(message)


def threads_needed(settings: Settings) -> int:
    """Threads that the lanes use at once, with some to spare."""
    return settings.request_threads + settings.write_threads + READ_THREADS + METRICS_THREADS + SPARE_THREADS
