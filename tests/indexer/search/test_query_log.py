"""The log of recent queries: what is stored, what is forgotten, and that a failing database stops nothing."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import recent_queries
from indexer.search.query_log import QueryLog
from training.reference import describe_encoder

NEVER = 3600.0  # seconds between writes: only closing stores


@pytest.fixture
def keys(any_home: Home, encoder_dir: Path, other_encoder_dir: Path) -> tuple[int, str, str]:
    """A collection and two encoders that its home knows."""
    described = [describe_encoder(directory) for directory in (encoder_dir, other_encoder_dir)]
    for encoder in described:
        any_home.add_encoder(encoder)
    return any_home.catalogue.ensure_collection("shop"), described[0].encoder_id, described[1].encoder_id


def vectors(first: int, count: int) -> np.ndarray:
    return np.arange(first, first + count, dtype=np.float32)[:, None] + np.array([0.0, 0.5], np.float32)


def stored(home: Home, collection_id: int, encoder_id: str) -> list[float]:
    """The first number of each vector, newest first."""
    kept = home.catalogue.queries.all(collection_id, encoder_id)
    return [float(vector[0]) for _, vector in kept]


def test_what_was_added_is_stored_when_the_log_closes(any_home: Home, keys: tuple[int, str, str]) -> None:
    collection, encoder, _ = keys
    before = datetime.now(UTC)
    log = QueryLog(any_home.catalogue, 10, every=NEVER)
    log.add(collection, encoder, vectors(0, 1))
    log.add(collection, encoder, vectors(1, 2))
    log.close()
    kept = any_home.catalogue.queries.all(collection, encoder)
    assert [vector.tolist() for _, vector in kept] == [[2, 2.5], [1, 1.5], [0, 0.5]]
    assert all(before - timedelta(seconds=1) < at <= datetime.now(UTC) for at, _ in kept)


def test_only_the_newest_of_each_encoder_are_kept(any_home: Home, keys: tuple[int, str, str]) -> None:
    collection, encoder, other = keys
    for first in (0, 3, 6):
        log = QueryLog(any_home.catalogue, 4, every=NEVER)
        log.add(collection, encoder, vectors(first, 3))
        log.close()
    log = QueryLog(any_home.catalogue, 4, every=NEVER)
    log.add(collection, other, vectors(100, 1))
    log.close()
    assert stored(any_home, collection, encoder) == [8, 7, 6, 5]
    assert stored(any_home, collection, other) == [100]


def test_memory_holds_no_more_than_are_kept(any_home: Home, keys: tuple[int, str, str]) -> None:
    collection, encoder, _ = keys
    log = QueryLog(any_home.catalogue, 4, every=NEVER)
    for number in range(50):
        log.add(collection, encoder, vectors(number, 1))
    log.close()
    assert stored(any_home, collection, encoder) == [49, 48, 47, 46]


def test_the_background_stores_without_being_closed(
    home: Home, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = describe_encoder(encoder_dir)
    home.add_encoder(described)
    collection = home.catalogue.ensure_collection("shop")
    arrived = threading.Event()
    store = home.catalogue.queries.add

    def telling(*given: object, **named: object) -> None:
        store(*given, **named)  # type: ignore[arg-type]
        arrived.set()

    monkeypatch.setattr(home.catalogue.queries, "add", telling)
    log = QueryLog(home.catalogue, 4, every=0.01)
    log.add(collection, described.encoder_id, vectors(5, 1))
    assert arrived.wait(timeout=30)
    assert stored(home, collection, described.encoder_id) == [5]
    log.close()


def test_a_database_that_fails_costs_the_queries_alone(
    any_home: Home, keys: tuple[int, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    collection, encoder, other = keys
    log = QueryLog(any_home.catalogue, 10, every=NEVER)
    log.add(collection, "an encoder that the home does not know", vectors(0, 2))
    log.add(collection, encoder, vectors(7, 1))
    with caplog.at_level(logging.WARNING, logger="nitamono"):
        log.close()
    assert "2 recent queries were not stored" in caplog.text
    assert stored(any_home, collection, encoder) == [7]
    with any_home.catalogue.write() as connection:
        recent_queries.drop(connection)
    broken = QueryLog(any_home.catalogue, 10, every=NEVER)
    broken.add(collection, other, vectors(0, 3))
    with caplog.at_level(logging.WARNING, logger="nitamono"):
        broken.close()
    assert "3 recent queries were not stored" in caplog.text
    with any_home.catalogue.read() as connection:
        assert not sa.inspect(connection).has_table("recent_queries")
