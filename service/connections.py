"""Connections: time-outs for slow and idle ones, a limit of the bytes of a request's head, and one of their number.

uvicorn reads heads of any size for any time, and waits for ever for a client that does not read its response.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.logs import OncePerPeriod

HEAD_BYTES = 64 * 1024  # of the request line and the headers; also of a body's framing and trailers
FRAMING = 8  # bytes of framing that each byte of a chunked body may have
WRITE_SECONDS = 30.0  # in which a client must take enough of its response for the buffer to run low
LOG_EVERY = 10.0  # seconds between log lines about the same shortage
CLOSE = b"Connection: close\r\nContent-Length: 0\r\n\r\n"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + CLOSE
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\n" + CLOSE
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\n" + CLOSE
logger = logging.getLogger("nitamono")


class ServerConfig(uvicorn.Config):
    """uvicorn's configuration with the limits of `Connection`.

    Args:
        head_timeout: seconds in which the head of a request must arrive.
        max_connections: per process; more are closed with 503.
    """

    def __init__(self, *args: Any, head_timeout: float, max_connections: int, **kwargs: Any) -> None:
        # With asyncio's own loop a process without free file descriptors goes on to accept once it has some.
        super().__init__(*args, **{**kwargs, "http": Connection, "loop": "service.connections:Loop"})
        self.head_timeout = head_timeout
        self.max_connections = max_connections


class Loop(asyncio.SelectorEventLoop):
    """asyncio's event loop; it can tell whether the server was told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self._servers: list[asyncio.Server] = []

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        server: asyncio.Server = await super().create_server(*args, **kwargs)
        self._servers.append(server)
        return server

    @property
    def is_stopping(self) -> bool:
        """True once no server accepts connections any more."""
        return not any(server.is_serving() for server in self._servers)


class Connection(HttpToolsProtocol):
    """One connection; each moment of it has a time-out, but for the time that the app needs to respond."""

    config: ServerConfig
    loop: Loop

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._overhead = 0  # bytes of the present request that are not its body, less what framing may take

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # asyncio leaves Nagle's algorithm on for sockets of `socket.create_server`. A response is written in two parts,
        # so the second one waited 40 ms for the client's delayed acknowledgement.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.config.max_connections:
            _log_shortage("connections", "all %d connections are in use; new ones get 503", self.config.max_connections)
            self._end(FULL)
            return
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._overhead += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._overhead > HEAD_BYTES and (self._in_head or len(data) <= self._overhead - HEAD_BYTES):
            self._end(TOO_LARGE)
        elif self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._start_head_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._overhead = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._overhead = 0
        self._stop_head_timer()
        super().on_headers_complete()
        # uvicorn ends the connections that it knows when it stops; one that was just accepted would be served on.
        if self.loop.is_stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._overhead -= (1 + FRAMING) * len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; a URL that is too long for the parser is a head that is too large."""
        if len(self.url) >= HEAD_BYTES:
            self._end(TOO_LARGE)
        else:
            super().send_400_response(msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._abort_soon()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self.config.head_timeout, self._on_slow_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_slow_head(self) -> None:
        self._head_timer = None
        self._end(TIMED_OUT)

    def _end(self, response: bytes) -> None:
        """Close; the response says why, unless another one is under way."""
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(response)
        self.transport.close()
        self._abort_soon()

    def _abort_soon(self) -> None:
        self.loop.call_later(WRITE_SECONDS, self.transport.abort)  # if the client does not take what is left


_is_due = OncePerPeriod(LOG_EVERY)


def _log_shortage(kind: str, message: str, *values: object) -> None:
    if _is_due(kind):
        logger.error(message, *values)


def log_shortages(loop: asyncio.AbstractEventLoop) -> None:
    """Log it when no connection can be accepted because file descriptors have run out; asyncio tries again."""

    def on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        if isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE):
            _log_shortage(
                "descriptors",
                "no connection can be accepted, because all file descriptors are in use (%s); raise the limit "
                "(`ulimit -n`, or LimitNOFILE of systemd)",
                exc.strerror,
            )
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(on_exception)
