"""A server whose vectors are in PostgreSQL, which is stopped and started again while it answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import psycopg
import pytest

from indexer.catalogue.home import Home
from indexer.generations.manifest import Manifest
from indexer.ingest.ingest import index_source
from tests.postgres import PostgresServer
from tests.service.conftest import ITEMS, Serve, assert_problem
from tests.service.writers import Writer

SEARCH = "/v1/collections/shop/search"


def found(client: httpx.Client, photo: bytes, **form: object) -> list[str]:
    answer = client.post(SEARCH, files={"image": photo}, data={"k": "35", **form})
    assert answer.status_code == 200, answer.text
    return [hit["item_id"] for hit in answer.json()["results"]]


def test_a_server_answers_writes_and_recovers_by_itself(
    serve: Serve, shop: Path, photo: bytes, encoder_dir: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    """Indexed, searched, written to, indexed again and restarted; then its database goes away and comes back."""
    database = PostgresServer(tmp_path_factory.mktemp("restarted"), tmp_path_factory.getbasetemp().parent)
    database.start()
    settings = {"database_url": database.url, "vectors": "pgvector"}
    try:
        with Home.open(tmp_path / "home", create=True, **settings) as home:  # type: ignore[arg-type]
            index_source(home, "shop", shop, encoder_ref=str(encoder_dir), processes=0)
            assert Manifest.read(home.generation_directory("shop", 1)).factory == "pgvector Flat"
            client = serve(home.path, **settings)
            first = found(client, photo)
            assert len(first) == ITEMS
            item = "/v1/collections/shop/items"
            assert client.put(f"{item}/new", files={"image": photo}).status_code == 201
            assert found(client, photo)[0] == "new"
            assert client.delete(f"{item}/{first[1]}").status_code == 204
            expected = ["new", first[0], *first[2:]]
            assert found(client, photo) == expected
            index_source(home, "shop", shop, processes=0)
            assert found(client, photo) == expected == found(serve(home.path, **settings), photo)
            bags = [name for name in expected if name.startswith("bag/")]
            assert found(client, photo, filter="category=bag") == bags

            writer = Writer(str(client.base_url), "live", 200)
            answers = under_load(client, photo, writer, database)
            assert set(answers) == {(200, None), (503, "urn:nitamono:problem:catalogue-unavailable")}
            served = found(client, photo, k="1000")
            assert [name for name in served if not name.startswith("live-")] == expected
            assert client.get("/readyz").status_code == 200
            writer.check(client)

            with psycopg.connect(database.url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("DROP TABLE generation_vectors_1_2")
            assert assert_problem(client.post(SEARCH, files={"image": photo}), 503)["title"] == "Index damaged"
            assert client.get("/readyz").status_code == 503
    finally:
        database.stop()


def under_load(
    client: httpx.Client, photo: bytes, writer: Writer, database: PostgresServer
) -> Counter[tuple[int, str | None]]:
    """Crash the database while items are sought and written, and start it again.

    Returns:
        The answers to searches by status and type of problem.
    """
    answers: Counter[tuple[int, str | None]] = Counter()
    ended = threading.Event()

    def search() -> None:
        while not ended.is_set():
            answer = client.post(SEARCH, files={"image": photo})
            answers[answer.status_code, answer.json().get("type")] += 1

    searching = threading.Thread(target=search)
    searching.start()
    writer.start()

    def wait_for(status: int) -> None:
        """For more answers with this status; while the database runs, for more acknowledged writes too."""
        before, written = count_of(status), writer.acknowledged
        until = time.monotonic() + 30
        while count_of(status) < before + 3 or (status == 200 and writer.acknowledged < written + 3):
            assert time.monotonic() < until, (answers, writer.failure)
            time.sleep(0.01)

    def count_of(status: int) -> int:
        return sum(count for (found, _), count in list(answers.items()) if found == status)

    try:
        wait_for(200)
        database.stop(crash=True)
        wait_for(503)
        database.start()
        wait_for(200)
    finally:
        ended.set()
        searching.join()
        writer.stop()
    return answers
