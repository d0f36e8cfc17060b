"""`nitamono backup` beside a server under load; a second server on the restored home answers as the first one."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from tests.commands import json_of
from tests.indexer.search.pages import jpeg
from tests.service.test_durability import start

FIXED = 4


def fixed_hits(url: str) -> list[tuple[str, float]]:
    """Hits among the items that nobody changes during the backup."""
    with httpx.Client(base_url=url, timeout=60) as client:
        answer = client.post(
            "/v1/collections/shop/search", files={"image": jpeg(302)}, data={"filter": "state=fixed", "k": FIXED}
        )
    assert answer.status_code == 200, answer.text
    return [(hit["item_id"], hit["score"]) for hit in answer.json()["results"]]


@pytest.mark.slow
def test_a_backup_under_load_restores_to_a_home_that_answers_the_same(home_copy: Path, tmp_path: Path) -> None:
    server, url = start(home_copy)
    written: list[str] = []
    deleted: list[str] = []
    stop, failures = threading.Event(), []

    def put(client: httpx.Client, name: str, number: int, state: str) -> None:
        form = {"attributes": json.dumps({"state": state})}
        answer = client.put(f"/v1/collections/shop/items/{name}", files={"image": jpeg(number)}, data=form)
        assert answer.status_code == 201, answer.text

    def write() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            number = 400
            while not stop.is_set():
                put(client, f"new-{number}", number, "moving")
                written.append(f"new-{number}")
                if number % 4 == 3:
                    assert client.delete(f"/v1/collections/shop/items/new-{number - 1}").status_code == 204
                    deleted.append(f"new-{number - 1}")
                number += 1

    def search() -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                answer = client.post("/v1/collections/shop/search", files={"image": jpeg(302)})
                if answer.status_code != 200:
                    failures.append(answer.text)

    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(300, 300 + FIXED):
            put(client, f"fixed-{number}", number, "fixed")
    expected = fixed_hits(url)
    threads = [threading.Thread(target=work) for work in (write, search)]
    for thread in threads:
        thread.start()
    try:
        while len(written) < 5:
            assert threads[0].is_alive(), "the writer failed"
        before, gone = set(written), set(deleted)
        json_of("backup", "--home", home_copy, "--out", tmp_path / "backup")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        server.terminate()
        server.wait()
    assert not failures
    json_of("restore", tmp_path / "backup", "--home", tmp_path / "elsewhere" / "home")
    verified = json_of("generations", "verify", "--home", tmp_path / "elsewhere" / "home", "-c", "shop")["verified"]
    assert verified and not any(verified.values())
    server, url = start(tmp_path / "elsewhere" / "home")
    try:
        assert fixed_hits(url) == expected and len(expected) == FIXED
        with httpx.Client(base_url=url, timeout=60) as client:
            for name in before | gone:
                status = client.get(f"/v1/collections/shop/items/{name}").status_code
                assert status == (404 if name in gone else 200) or (name in deleted and name not in gone)
    finally:
        server.terminate()
        server.wait()
