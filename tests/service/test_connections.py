"""Slow, half-open and greedy connections end; a shortage of file descriptors is logged."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.connections import HEAD_BYTES
from service.settings import Settings
from tests.service.conftest import running

SEARCH = "/v1/collections/shop/search"


@pytest.fixture(scope="module")
def address(indexed_home: Path) -> Iterator[tuple[str, int]]:
    settings = {"head_timeout": 0.3, "keep_alive": 1, "max_connections": 50}
    app = create_app(Settings(home=indexed_home, query_log=0, body_timeout=0.3))
    with running(app, **settings) as url:
        while httpx.get(f"{url}/readyz").status_code != 200:
            time.sleep(0.02)
        yield "127.0.0.1", int(url.rpartition(":")[2])


def everything(connection: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    connection.settimeout(10)
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


def test_a_connection_that_sends_nothing_ends(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as silent, socket.create_connection(address) as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert everything(silent).startswith(b"HTTP/1.1 408")
        assert everything(half).startswith(b"HTTP/1.1 408")


def test_a_second_request_whose_head_drips_ends_too(address: tuple[str, int]) -> None:
    for drip in (b"\r\n", b"GET /"):
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            connection.sendall(drip)
            assert b"HTTP/1.1 408" in everything(connection)


def test_an_idle_connection_ends_after_the_keep_alive_time(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        assert everything(connection).startswith(b"HTTP/1.1 200")
        assert 0.8 < time.monotonic() - began < 5


def test_a_body_that_stops_arriving_is_408(address: tuple[str, int]) -> None:
    for length in (b"Content-Length: 1000", b"Transfer-Encoding: chunked"):
        with socket.create_connection(address) as connection:
            head = b"POST " + SEARCH.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(head + length + b"\r\n\r\n")
            answer = everything(connection)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"NITAMONO_BODY_TIMEOUT" in answer


@pytest.mark.parametrize("head", [
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)),
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2 * HEAD_BYTES,
    b"GET /" + b"y" * 2 * HEAD_BYTES,
    b"POST /v1/collections/shop/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)),
], ids=["many headers", "a long header", "a long path", "trailers"])  # fmt: skip
def test_a_head_without_end_is_cut_off(address: tuple[str, int], head: bytes) -> None:
    with socket.create_connection(address) as connection:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(200):
                connection.sendall(head)
                time.sleep(0.001)


@pytest.mark.parametrize("length", [64 * 1024, 70_000, 200_000])
def test_a_url_that_is_too_long_is_431_and_not_taken_for_broken_http(address: tuple[str, int], length: int) -> None:
    with socket.create_connection(address, timeout=10) as connection, suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(b"GET /" + b"x" * (length - 1) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 431 ")


def test_a_head_within_the_limit_is_read(address: tuple[str, int]) -> None:
    headers = {f"X-{n}": "y" * 100 for n in range(100)}
    assert httpx.get(f"http://{address[0]}:{address[1]}/healthz", headers=headers).status_code == 200


def test_a_response_does_not_wait_for_the_acknowledgement_of_its_head(address: tuple[str, int]) -> None:
    """With Nagle's algorithm every answer on a kept connection takes 40 ms more."""
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        took = []
        for _ in range(30):
            began = time.perf_counter()
            client.get("/healthz")
            took.append(time.perf_counter() - began)
    assert sorted(took)[15] < 0.03


def test_a_chunked_body_of_small_parts_is_read(address: tuple[str, int]) -> None:
    body = json.dumps({"vector": [0.5] * 768}).encode()
    answer = httpx.post(
        f"http://{address[0]}:{address[1]}{SEARCH}",
        content=(body[at : at + 7] for at in range(0, len(body), 7)),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text


def test_a_client_that_does_not_read_its_response_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.connections.WRITE_SECONDS", 0.3)
    ended = threading.Event()

    async def send_much(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    with running(send_much) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert ended.wait(10), "the response waits for ever"
        assert len(everything(idle)) < 32 * 2**20  # what the buffers of the two sockets held
        assert len(httpx.get(url, timeout=30).content) == 64 * 2**20


def test_connections_beyond_the_limit_get_503(address: tuple[str, int]) -> None:
    opened = [socket.create_connection(address) for _ in range(80)]
    try:
        assert everything(opened[-1]).startswith(b"HTTP/1.1 503")
    finally:
        for connection in opened:
            connection.close()
    time.sleep(0.1)
    assert httpx.get(f"http://{address[0]}:{address[1]}/healthz").status_code == 200


@contextmanager
def process(
    home: Path, *arguments: str, shell: str = "", **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    """`nitamono serve` in a process of its own; yields its URL, the process and its log."""
    log = home.parent / "serve.log"
    command = [sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--port", "0", *arguments]
    line = f"{shell}exec {' '.join(command)}"
    with log.open("w") as output:
        started = subprocess.Popen(["sh", "-c", line], stderr=output, text=True, env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://[0-9.]+:\d+", log.read_text())):
            assert started.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        while True:
            try:
                if httpx.get(f"{found[0]}/readyz", timeout=30).status_code == 200:
                    break
            except httpx.HTTPError:
                assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield found[0], started, log
    finally:
        started.kill()
        started.wait()


@pytest.mark.slow
def test_a_server_out_of_file_descriptors_says_so_and_recovers(home_copy: Path) -> None:
    with process(home_copy, shell="ulimit -n 64; ", NITAMONO_KEEP_ALIVE="1") as (url, _, log):
        host, port = url.removeprefix("http://").split(":")
        opened = [socket.create_connection((host, int(port))) for _ in range(80)]
        deadline = time.monotonic() + 10
        while "file descriptors are in use" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        for connection in opened:
            connection.close()
        assert httpx.get(f"{url}/healthz", timeout=10).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_told_to_stop_ends_its_requests_and_refuses_others(home_copy: Path, workers: str) -> None:
    with process(home_copy, "--workers", workers) as (url, started, log):
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({"vector": [0.5] * 768}).encode()
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
            time.sleep(0.3)  # the request has begun
            started.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while True:
                try:
                    socket.create_connection((host, int(port)), timeout=1).close()
                except OSError:
                    break  # refused
                assert time.monotonic() < deadline
                time.sleep(0.05)
            connection.sendall(body[100:])
            assert everything(connection).startswith(b"HTTP/1.1 200"), log.read_text()
        assert started.wait(timeout=20) in (0, -signal.SIGTERM)


def test_a_connection_accepted_in_the_moment_of_a_stop_serves_one_request() -> None:
    blocked, request = threading.Event(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def block_the_loop(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        blocked.set()
        time.sleep(0.5)  # meanwhile a client connects, and the server is told to stop
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    with ExitStack() as stack:
        with running(block_the_loop, drain_seconds=10) as url:
            address = "127.0.0.1", int(url.rpartition(":")[2])
            first = stack.enter_context(socket.create_connection(address))
            first.sendall(request)
            assert blocked.wait(10)
            late = stack.enter_context(socket.create_connection(address))
            late.sendall(request)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        assert everything(first).startswith(b"HTTP/1.1 200")
        received = everything(late)
        assert received.startswith(b"HTTP/1.1 200") and b"connection: close" in received


@pytest.mark.slow
def test_the_time_of_a_stop_is_bounded(home_copy: Path) -> None:
    with process(home_copy, NITAMONO_DRAIN_SECONDS="1") as (url, started, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {SEARCH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            head += "Content-Length: 900\r\n\r\n"
            connection.sendall(head.encode())
            time.sleep(0.3)  # the request has begun
            began = time.monotonic()
            started.send_signal(signal.SIGTERM)
            started.wait(timeout=20)
            assert time.monotonic() - began < 6
