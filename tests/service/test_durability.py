"""SIGKILL of a server that is being written to: what it had acknowledged is there, and served, afterwards."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.search.searcher import Searcher
from tests.indexer.search.pages import jpeg


def start(home: Path, *wrapper: str, workers: int = 1) -> tuple[subprocess.Popen[str], str]:
    """A server process and its URL; a wrapper is a command that runs it, such as `prlimit`."""
    command = [*wrapper, sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--port", "0"]
    command += ["--workers", str(workers)]
    log = home.parent / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(command, stderr=file, text=True, cwd=Path(__file__).parents[2])
    while server.poll() is None:
        if found := re.search(r"http://\S+:\d+", log.read_text()):
            return server, found[0]
        time.sleep(0.02)
    pytest.fail("the server ended before it was up: " + log.read_text())


@pytest.mark.parametrize("count", [3, 20])
def test_what_was_acknowledged_before_a_kill_is_served_after_it(count: int, home_copy: Path) -> None:
    server, url = start(home_copy)
    written: list[int] = []
    deleted: list[str] = []

    def write() -> None:
        with httpx.Client(base_url=f"{url}/v1/collections/shop/items", timeout=30) as client:
            for number in range(201, 1000):
                try:
                    answer = client.put(f"/new-{number}", files={"image": jpeg(number)})
                    assert answer.status_code == 201, answer.text
                    written.append(number)
                    if number % 5 == 0:
                        gone = f"new-{number - 3}"
                        assert client.delete(f"/{gone}").status_code == 204
                        deleted.append(gone)
                except httpx.TransportError:
                    return

    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.put("/v1/collections/shop/items/first", files={"image": jpeg(199)}).status_code == 201
    writer = threading.Thread(target=write)
    writer.start()
    while len(written) < count and writer.is_alive():
        time.sleep(0.001)
    server.send_signal(signal.SIGKILL)
    server.wait()
    writer.join()
    assert len(written) >= count
    with Home.open(home_copy) as home:
        searcher = Searcher(home)
        for number in written:
            name = f"new-{number}"
            best = searcher.search_image("shop", jpeg(number), k=1).results[0].item_id
            assert (best == name) is (name not in deleted)
