"""SIGKILL of a server and of one of its workers under writes: nothing acknowledged is lost, nothing returns."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.ingest.clean import AGE
from tests.commands import json_of
from tests.indexer.conftest import orphans
from tests.service.conftest import ready
from tests.service.test_durability import start
from tests.service.writers import Writer

TRIALS = 10
LONGEST = 1.5  # seconds of writing before a kill
FIRST_PHOTO = 2000
STEP = 1000  # photos between two writers


def writers(url: str, trial: int, *, retry: bool) -> list[Writer]:
    first = FIRST_PHOTO + 2 * STEP * trial
    return [Writer(url, name, first + STEP * place, retry=retry) for place, name in enumerate(("a", "b"))]


def assert_clean_removes_what_is_left(home: Path) -> None:
    for path in home.rglob("*"):
        os.utime(path, (time.time() - 2 * AGE,) * 2)  # what a kill left is old enough for `clean` in an hour
    json_of("clean", "--home", home)
    with Home.open(home) as opened:
        assert orphans(opened, "shop") == []


def workers_of(server: subprocess.Popen[str]) -> list[int]:
    """The process ids of a server's workers."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def trial_of_the_server(home: Path, trial: int, workers: int, seconds: float) -> int:
    """Kill a server while two clients write; returns how many writes it had acknowledged."""
    server, url = start(home, workers=workers)
    ready(url, workers)
    children = workers_of(server)
    clients = writers(url, trial, retry=False)
    for client in clients:
        client.start()
    time.sleep(seconds)
    server.send_signal(signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 60  # one that is still starting ends once it has started
    while any(is_running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in children if is_running(pid)], "workers outlived their server"
    for client in clients:
        client.stop()
    server, url = start(home, workers=1)
    try:
        with httpx.Client(base_url=url, timeout=60) as opened:
            for client in clients:
                client.check(opened)
    finally:
        server.terminate()
        server.wait()
    assert_clean_removes_what_is_left(home)
    return sum(client.acknowledged for client in clients)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_server_loses_nothing_that_it_acknowledged(workers: int, home_copy: Path) -> None:
    assert trial_of_the_server(home_copy, 0, workers, 1.0) > 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_server_killed_at_random_moments_loses_nothing(home_copy: Path) -> None:
    moments = random.Random(0)
    for trial in range(TRIALS):
        trial_of_the_server(home_copy, trial, 1 + trial % 2, moments.uniform(0.0, LONGEST))


def trials_of_a_worker(home: Path, trials: int) -> int:
    """Kill a worker several times while two clients write, which try again; returns the writes acknowledged."""
    moments = random.Random(1)
    server, url = start(home, workers=2)
    try:
        ready(url, 4)
        clients = writers(url, 0, retry=True)
        for client in clients:
            client.start()
        for trial in range(trials):
            while sum(client.acknowledged for client in clients) <= trial:  # new workers take a while to start
                time.sleep(0.02)
                assert all(client.is_alive() for client in clients), [client.failure for client in clients]
            time.sleep(moments.uniform(0.0, LONGEST))
            while not (alive := workers_of(server)):  # the server has not noticed yet that both are gone
                time.sleep(0.02)
            os.kill(moments.choice(alive), signal.SIGKILL)
        for client in clients:
            client.stop()
        deadline = time.monotonic() + 60
        while len(workers_of(server)) < 2:
            assert time.monotonic() < deadline, "a killed worker was not replaced"
            time.sleep(0.02)
        ready(url, 4)
        with httpx.Client(base_url=url, timeout=60) as opened:
            for client in clients:
                client.check(opened)
    finally:
        server.terminate()
        assert server.wait(timeout=60) == 0
    assert_clean_removes_what_is_left(home)
    return sum(client.acknowledged for client in clients)


def test_a_killed_worker_loses_nothing_and_is_replaced(home_copy: Path) -> None:
    assert trials_of_a_worker(home_copy, 1) > 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_workers_killed_at_random_moments_lose_nothing(home_copy: Path) -> None:
    assert trials_of_a_worker(home_copy, TRIALS) >= TRIALS
