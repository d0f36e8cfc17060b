"""Connections to the catalogue's database: SQLite (WAL) or PostgreSQL, with errors translated to ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

from indexer.errors import BusyError, IndexerError

WRITE_WAIT = 30.0  # seconds that a write on SQLite waits for other processes
MALFORMED = (
    "the database URL (NITAMONO_DATABASE_URL) is malformed; write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, "
    "with "
    "@, :, / and other special characters of the password percent-encoded (@ as %40); it is not shown here, because it "
    "may contain a password"
)
POOL = {"pool_size": 8, "max_overflow": 64}  # a thread never waits for a connection


def create_engine(url: str, *, write_wait: float | None = None) -> Engine:
    """An engine with the settings we rely on: WAL, full fsync and foreign keys on SQLite.

    Args:
        write_wait: see `Home.open`.

    Raises:
        IndexerError: SQLAlchemy cannot parse the URL, or its driver is not installed.
    """
    engine = _engine(_parsed(url))
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_configure_sqlite, write_wait or WRITE_WAIT))
        event.listen(engine, "begin", _begin_sqlite)
    elif write_wait is not None:
        event.listen(engine, "begin", partial(_begin_postgresql, write_wait))
    return engine


class Database:
    """Transactions on the catalogue's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_postgresql = engine.dialect.name == "postgresql"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction that sees one consistent snapshot."""
        with translated_errors(), self.engine.connect() as connection:
            if self.is_postgresql:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and rolls back on an exception."""
        with (
            translated_errors(),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            yield connection

    def size(self) -> int:
        """Size of the database in bytes."""
        query = (
            "SELECT pg_database_size(current_database())"
            if self.is_postgresql
            else "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        )
        with self.read() as connection:
            return int(connection.scalar(sa.text(query)) or 0)

    def copy_to(self, path: Path) -> None:
        """Copy an SQLite database to a new file, as one snapshot, while others read and write it."""
        with translated_errors(), self.engine.connect() as connection:
            source: Any = connection.connection.driver_connection
            target = sqlite3.connect(path)
            try:
                source.backup(target)
            except sqlite3.Error as exc:
                raise IndexerError(f"{path}: the catalogue cannot be copied ({exc})") from exc
            finally:
                target.close()


@contextmanager
def translated_errors() -> Iterator[None]:
    """Translate failures of the database itself (locked, full, unreachable); other exceptions are bugs and pass."""
    try:
        yield
    except sa.exc.OperationalError as exc:
        reason = str(exc.orig).strip().splitlines()[0]
        if "locked" in reason or "lock timeout" in reason:
            raise BusyError(f"another process is writing the catalogue ({reason}); try again") from exc
        raise IndexerError(f"the catalogue's database failed ({reason})") from exc
    except sa.exc.TimeoutError as exc:
        raise BusyError("all connections to the catalogue's database are in use; try again") from exc


def _pool(url: sa.URL) -> dict[str, Any]:
    """Options of the connection pool; a database in memory has only one connection."""
    in_memory = url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:")
    return {} if in_memory else POOL


def _configure_sqlite(write_wait: float, connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves: the driver's own would come too late for a write
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={round(write_wait * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(write_wait: float, connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(write_wait * 1000)}")


def _parsed(url: str) -> sa.URL:
    """Parse a database URL; no part of a malformed one is printed, since any part may hold the password."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise IndexerError(MALFORMED) from None
    is_file = parsed.drivername.startswith("sqlite")
    if not is_file and any("@" in (part or "") for part in (parsed.host, parsed.database)):
        raise IndexerError(MALFORMED)  # an unescaped password that reaches into the host or the path
    return parsed


def _engine(url: sa.URL) -> Engine:
    is_sqlite = url.drivername.startswith("sqlite")
    try:
        return sa.create_engine(url, pool_pre_ping=not is_sqlite, **_pool(url))
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as exc:
        shown = sa.URL.create(url.drivername, host=url.host).render_as_string()
        raise IndexerError(f"database URL {shown!r} cannot be used ({exc})") from exc
    except (sa.exc.ArgumentError, TypeError, ValueError):  # an option of the URL that the driver cannot take
        raise IndexerError(MALFORMED) from None
