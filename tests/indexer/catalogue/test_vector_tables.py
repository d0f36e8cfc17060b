"""Tables of vectors beside those of other installations, owners and sessions of the same database."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest

from indexer.catalogue import vector_table
from indexer.catalogue.home import Home
from indexer.catalogue.vector_table import NewVectorTable
from indexer.errors import BusyError, CatalogueError, CorruptError, IndexerError
from indexer.generations.store import verify
from indexer.ingest.clean import clean
from indexer.ingest.ingest import index_source
from indexer.vectors.engines import read_index
from tests.conftest import write_photos

ORPHAN = "generation_vectors_7_1"


def opened(path: Path, url: str) -> Home:
    return Home.open(path, database_url=url, vectors="pgvector", create=True)


@pytest.fixture
def home(tmp_path: Path, postgres_url: str) -> Iterator[Home]:
    with opened(tmp_path / "home", postgres_url) as home:
        yield home


@contextmanager
def session(url: str, *, autocommit: bool = True) -> Iterator[psycopg.Connection]:
    """Another user of the database; without `autocommit`, what it does and locks is kept until it commits."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=autocommit) as connection:
        yield connection


@pytest.fixture
def other(postgres_url: str) -> Iterator[psycopg.Connection]:
    with session(postgres_url) as connection:
        yield connection


def tables(connection: psycopg.Connection) -> list[str]:
    found = connection.execute(
        "SELECT format('%s.%s', relnamespace::regnamespace, relname) FROM pg_class "
        "WHERE relkind = 'r' AND starts_with(relname, 'generation_vectors_')"
    )
    return sorted(name for (name,) in found)


def wait_until_blocked(connection: psycopg.Connection) -> None:
    """Until a session of this database waits for another one."""
    until = time.monotonic() + 10
    blocked = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while connection.execute(blocked).fetchone() is None:
        assert time.monotonic() < until, "nothing waits"
        time.sleep(0.01)


def fill(table: NewVectorTable) -> None:
    table.create(3, halves=False)
    table.append(0, [np.eye(3, dtype=np.float32)], halves=False)


def test_installations_in_schemas_of_one_database_leave_each_others_tables_alone(
    tmp_path: Path, encoder_dir: Path, postgres_url: str, other: psycopg.Connection
) -> None:
    """Whatever else their search_path holds."""
    other.execute("CREATE SCHEMA staging")
    opened(tmp_path / "s", f"{postgres_url}?options=-csearch_path%3Dstaging").close()
    shop, live = write_photos(tmp_path / "shop", 4), "public.generation_vectors_1_1"
    with (
        opened(tmp_path / "p", postgres_url) as production,
        opened(tmp_path / "s", f"{postgres_url}?options=-csearch_path%3Dstaging,public") as staging,
    ):
        index_source(production, "default", shop, encoder_ref=str(encoder_dir), processes=0)
        other.execute(f"CREATE TABLE staging.{ORPHAN} ()")
        assert [left.path.name for left in clean(staging).removed] == [ORPHAN]
        assert tables(other) == [live] and verify(production, "default", 1) == []
        index_source(staging, "default", shop, encoder_ref=str(encoder_dir), processes=0)
        assert clean(staging).removed == [] == clean(production).removed
        assert tables(other) == [live, "staging.generation_vectors_1_1"]
        assert verify(staging, "default", 1) == [] == verify(production, "default", 1)


def test_a_table_of_the_same_name_in_another_schema_is_never_meant(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, other: psycopg.Connection
) -> None:
    """As one that a schema named like the user holds, which comes first in PostgreSQL's own search_path."""
    shop = write_photos(tmp_path / "shop", 4)
    index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    other.execute("CREATE SCHEMA nitamono")
    for number in (1, 2):
        other.execute(f"CREATE TABLE nitamono.generation_vectors_1_{number} ()")
    with opened(tmp_path / "home", postgres_url) as again:
        assert verify(again, "default", 1) == []
        write_photos(tmp_path / "shop", 5)
        index_source(again, "default", shop, processes=0)
        assert verify(again, "default", 2) == []
    assert tables(other) == [f"{schema}.generation_vectors_1_{n}" for schema in ("nitamono", "public") for n in (1, 2)]


def test_the_extension_may_be_added_by_two_first_builds_at_once(
    home: Home, postgres_url: str, other: psycopg.Connection
) -> None:
    def build() -> None:
        with home.catalogue.vector_tables.new(7, 1, "l2") as table:
            fill(table)

    with ThreadPoolExecutor() as threads:
        with session(postgres_url, autocommit=False) as first:
            first.execute("CREATE EXTENSION vector")
            building = threads.submit(build)
            wait_until_blocked(other)
        building.result(timeout=20)
    assert tables(other) == [f"public.{ORPHAN}"]


def test_a_table_of_another_role_is_left_and_named(
    tmp_path: Path, postgres_url: str, other: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"user{time.monotonic_ns()}"
    other.execute(f"CREATE ROLE {role} LOGIN")
    other.execute(f"GRANT ALL ON SCHEMA public TO {role}")
    with opened(tmp_path / "home", postgres_url.replace("nitamono@", f"{role}@")) as home:
        other.execute(f"CREATE TABLE {ORPHAN} ()")
        other.execute(f"CREATE TABLE generation_vectors_8_1 (); ALTER TABLE generation_vectors_8_1 OWNER TO {role}")
        with caplog.at_level(logging.INFO, "nitamono"):
            assert [left.path.name for left in clean(home).removed] == ["generation_vectors_8_1"]
        assert len(caplog.messages) == 1 and re.search(rf"{ORPHAN} .* only its owner may drop it", caplog.messages[0])
        other.execute("CREATE EXTENSION vector")
        with pytest.raises(IndexerError, match=f"{ORPHAN}, .* belongs to another role; drop it as its owner"):
            with home.catalogue.vector_tables.new(7, 1, "l2") as table:
                fill(table)
    assert tables(other) == [f"public.{ORPHAN}"]
    other.execute(f"DROP OWNED BY {role}")
    other.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize("lock", [f"DROP TABLE {ORPHAN}", f"LOCK TABLE {ORPHAN} IN ACCESS SHARE MODE"])
def test_clean_reports_what_it_dropped_and_waits_for_nobody(
    home: Home, postgres_url: str, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """Beside a session that is dropping one of two tables, or reading it."""
    monkeypatch.setattr(vector_table, "DROP_WAIT", "50ms")
    other.execute(f"CREATE TABLE {ORPHAN} AS SELECT 1")
    other.execute("CREATE TABLE generation_vectors_8_1 AS SELECT 1")
    expected = [("generation_vectors_8_1", 8192)]
    with session(postgres_url, autocommit=False) as holding:
        holding.execute("SET LOCAL idle_in_transaction_session_timeout = '20s'")  # ends a `clean` that waits
        holding.execute(lock)
        read = [] if lock.startswith("DROP") else [(ORPHAN, 8192)]
        found = [clean(home, dry_run=True), clean(home)]
        assert [[(left.path.name, left.bytes) for left in report.removed] for report in found] == [
            read + expected, expected
        ]  # fmt: skip
        holding.rollback()
    assert tables(other) == [f"public.{ORPHAN}"]
    assert [left.path.name for left in clean(home).removed] == [ORPHAN]


def test_a_table_that_a_build_records_meanwhile_is_not_dropped(
    home: Home, tmp_path: Path, encoder_dir: Path, other: psycopg.Connection
) -> None:
    """An orphan's name is that of the generation being built; who waits to drop the one finds the other."""
    index_source(home, "default", write_photos(tmp_path / "shop", 4), encoder_ref=str(encoder_dir), processes=0)
    first = home.catalogue.generations.all("default")[0]
    other.execute("CREATE TABLE generation_vectors_1_2 ()")
    with ThreadPoolExecutor() as threads:
        with home.catalogue.vector_tables.new(1, 2, "l2") as table:
            fill(table)
            dropping = threads.submit(home.catalogue.vector_tables.drop_unused)
            wait_until_blocked(other)
            home.catalogue.generations.add(1, replace(first, number=2), table.connection)
        assert dropping.result(timeout=20) == []
    assert tables(other) == ["public.generation_vectors_1_1", "public.generation_vectors_1_2"]


def test_a_build_does_not_wait_for_ever_for_who_reads_a_leftover_of_its_name(
    home: Home, postgres_url: str, other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_table, "DROP_WAIT", "50ms")
    other.execute("CREATE EXTENSION vector")
    other.execute(f"CREATE TABLE {ORPHAN} ()")
    with session(postgres_url, autocommit=False) as dump:
        dump.execute("SET LOCAL idle_in_transaction_session_timeout = '10s'")
        dump.execute(f"LOCK TABLE {ORPHAN} IN ACCESS SHARE MODE")
        with pytest.raises(BusyError, match=rf"table public\.{ORPHAN}, .* is being read, as by a dump; try again"):
            with home.catalogue.vector_tables.new(7, 1, "l2") as table:
                fill(table)
    with home.catalogue.vector_tables.new(7, 1, "l2") as table:
        fill(table)
        assert table.connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"  # of the DROP alone
    assert tables(other) == [f"public.{ORPHAN}"]


@pytest.mark.parametrize(
    "setting",
    [
        "transaction_timeout",
        pytest.param("statement_timeout", marks=pytest.mark.slow),
        pytest.param("idle_in_transaction_session_timeout", marks=pytest.mark.slow),
    ],
)
def test_a_build_may_take_longer_than_the_server_lets_transactions_take(
    tmp_path: Path, postgres_url: str, other: psycopg.Connection, setting: str
) -> None:
    """Also one of a server, whose transactions have settings of their own from the start."""
    other.execute("CREATE EXTENSION vector")
    opened(tmp_path / "home", postgres_url).close()
    other.execute(f"ALTER DATABASE \"{other.info.dbname}\" SET {setting} = '250ms'")
    with Home.open(tmp_path / "home", database_url=postgres_url, vectors="pgvector", write_wait=5.0) as home:
        with home.catalogue.vector_tables.new(7, 1, "l2") as table:
            threading.Event().wait(0.4)
            fill(table)
            table.connection.exec_driver_sql("SELECT pg_sleep(0.4)")
            threading.Event().wait(0.4)
        assert tables(other) == [f"public.{ORPHAN}"]
        with pytest.raises(CatalogueError, match="the catalogue's database cannot be used"):
            with home.catalogue.database.write() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(0.2)")
                threading.Event().wait(0.4)
                connection.exec_driver_sql("SELECT pg_sleep(0.4)")


def test_a_generation_in_a_table_is_not_looked_for_in_sqlite(tmp_path: Path) -> None:
    """As where the database's URL was forgotten."""
    with Home.open(tmp_path / "home", vectors="faiss", create=True) as home:
        table = home.catalogue.vector_tables.of(1, 1, "l2")
        with pytest.raises(CorruptError, match="vectors are in a table of PostgreSQL, and the catalogue is not"):
            read_index(tmp_path, "pgvector Flat", {}, table)
