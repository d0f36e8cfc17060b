"""Connections to the catalogue's database: SQLite (WAL) or PostgreSQL, with errors translated to ours."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

from indexer.catalogue.failures import damaged, of_sqlite, translated
from indexer.catalogue.sqlite import SqliteFile
from indexer.errors import BusyError, DamagedCatalogueError, IndexerError, ReadOnlyError

WRITE_WAIT = 30.0  # seconds that a write on SQLite waits for other processes
MALFORMED = (
    "the database URL (NITAMONO_DATABASE_URL) is malformed; write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, "
    "with @, :, / and other special characters of the password percent-encoded (@ as %40); it is not shown here, "
    "because it may contain a password"
)
POOL = {"pool_size": 8, "max_overflow": 64}  # a thread never waits for a connection


class Database:
    """Transactions on the catalogue's database.

    Once an SQLite database is found to be damaged, this object refuses to read or write it: what is read may be wrong,
    and what is written may be lost.
    """

    def __init__(self, engine: Engine, file: SqliteFile | None) -> None:
        self.engine = engine
        self.file = file
        self.is_postgresql = engine.dialect.name == "postgresql"
        self._damage: DamagedCatalogueError | None = None
        self._shown = "the catalogue's database" if file is None else file.shown

    @classmethod
    def open(cls, url: str, *, write_wait: float | None = None) -> Database:
        """A database with the settings that we rely on: WAL, full fsync and foreign keys on SQLite.

        Args:
            write_wait: see `Home.open`.

        Raises:
            IndexerError: SQLAlchemy cannot parse the URL, or its driver is not installed.
        """
        parsed = _parsed(url)
        engine = _engine(parsed)
        file = None
        if engine.dialect.name == "sqlite":
            if not _is_in_memory(parsed):
                file = SqliteFile(Path(str(parsed.database)).absolute())
                file.attach(engine)
            event.listen(engine, "connect", partial(_configure_sqlite, write_wait or WRITE_WAIT, file))
            event.listen(engine, "begin", partial(_begin_sqlite, file))
        elif write_wait is not None:
            event.listen(engine, "begin", partial(_begin_postgresql, write_wait))
        return cls(engine, file)

    @property
    def is_read_only(self) -> bool:
        """Whether the file cannot be written to, as on a read-only file system."""
        return self.file is not None and self.file.mode != "writable"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction that sees one consistent snapshot.

        Raises:
            BusyError, CatalogueError: the database cannot be used; see `indexer.catalogue.failures`.
        """
        with self._translated(), self.engine.connect() as connection:
            if self.is_postgresql:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at the end of the block and rolls back on an exception.

        Raises:
            BusyError, CatalogueError, DiskFullError, ReadOnlyError: nothing has been written, or, with
                `LostCatalogueError`, it went to a file that was deleted or replaced meanwhile.
        """
        if self.is_read_only:
            raise ReadOnlyError(f"{self._shown} is read-only; allow writing to the file and its folder")
        with self._translated(), self.engine.connect().execution_options(writes=True) as connection:
            with connection.begin():
                yield connection
            if self.file is not None:
                self.file.check(connection)

    def check(self) -> None:
        """Read the whole database and check its structure, if it is SQLite; about 1 s for each 500 MB.

        Raises:
            CatalogueError: it is damaged or lost.
        """
        with self._translated():
            if self.file is not None:
                self.file.check_structure()

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
        with self._translated(), self.engine.connect() as connection:
            source: Any = connection.connection.driver_connection
            target = sqlite3.connect(path)
            try:
                source.backup(target)
            except sqlite3.Error as exc:
                raise of_sqlite(exc, self._shown) or exc from exc
            finally:
                target.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate failures of the database itself; other exceptions are bugs and pass."""
        if self._damage is not None:
            raise DamagedCatalogueError(str(self._damage))
        try:
            yield
        except DamagedCatalogueError as exc:
            self._keep(exc)
            raise
        except sa.exc.DBAPIError as exc:
            error = translated(exc, self._shown)
            if error is None:
                raise
            self._keep(error)
            raise error from exc
        except sa.exc.TimeoutError as exc:
            raise BusyError("all connections to the catalogue's database are in use; try again") from exc

    def _keep(self, error: IndexerError) -> None:
        """Remember damage, but not what a file that changes under an immutable connection looks like."""
        if isinstance(error, DamagedCatalogueError) and self.file is not None and self.file.mode != "immutable":
            self._damage = error


def _is_in_memory(url: sa.URL) -> bool:
    return url.drivername.startswith("sqlite") and url.database in (None, "", ":memory:")


def _configure_sqlite(write_wait: float, file: SqliteFile | None, connection: Any, record: Any) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves: the driver's own would come too late for a write
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(write_wait * 1000)}")
    cursor.execute("PRAGMA foreign_keys=ON")
    if file is None or record.info["mode"] == "writable":
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("SELECT 1 FROM sqlite_master").fetchone()  # opens the write-ahead log
    cursor.close()
    if file is not None:
        file.remember(record)


def _begin_sqlite(file: SqliteFile | None, connection: Connection) -> None:
    if file is not None:
        file.check(connection)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _begin_postgresql(write_wait: float, connection: Connection) -> None:
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(write_wait * 1000)}")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise damaged("the catalogue", f"{text[:40]!r} is not JSON") from exc


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
        # A database in memory has only one connection.
        pool: dict[str, Any] = {} if _is_in_memory(url) else POOL
        return sa.create_engine(url, pool_pre_ping=not is_sqlite, json_deserializer=_from_json, **pool)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as exc:
        shown = sa.URL.create(url.drivername, host=url.host).render_as_string()
        raise IndexerError(f"database URL {shown!r} cannot be used ({exc})") from exc
    except (sa.exc.ArgumentError, TypeError, ValueError):  # an option of the URL that the driver cannot take
        raise IndexerError(MALFORMED) from None
