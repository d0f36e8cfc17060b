"""The tables with vectors of generations, beside the catalogue's own in PostgreSQL with the extension pgvector.

A generation has one table, whose name says its collection and number. It is created, filled and indexed in the
transaction that records the generation, so a killed build leaves nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, select

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import generations
from indexer.catalogue.vector_table import (
    INSUFFICIENT_PRIVILEGE,
    UNDEFINED_TABLE,
    NewVectorTable,
    VectorTable,
    lift_timeouts,
    sqlstate_of,
    wait_briefly,
)
from indexer.errors import BusyError, IndexerError
from training.reference import Metric

logger = logging.getLogger("nitamono")

NAME = re.compile(r"generation_vectors_\d+_\d+")
LEAST_VERSION = (0, 8)  # of pgvector: the first with iterative scans, which a filter needs
UNIQUE_VIOLATION = "23505"
ELSEWHERE = "or unset NITAMONO_VECTORS to keep indexes in files"
ON_SQLITE = f"NITAMONO_VECTORS=pgvector needs a catalogue in PostgreSQL; set NITAMONO_DATABASE_URL, {ELSEWHERE}"


class Unused(NamedTuple):
    """A table that no generation has, and its size with its indexes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class VectorTables:
    """The tables with vectors of a database."""

    database: Database

    def of(self, collection_id: int, number: int, metric: Metric) -> VectorTable | None:
        """The table of a generation, which need not exist; None if the database is SQLite."""
        if not self.database.is_postgresql:
            return None
        with self.database.read() as connection:
            schema = _schema(connection)
        return VectorTable(self.database, f"{schema}.{_name(collection_id, number)}", metric)

    @contextmanager
    def new(self, collection_id: int, number: int, metric: Metric) -> Iterator[NewVectorTable]:
        """The table of a generation, to be built and recorded within a transaction, which ends with the block.

        Raises:
            IndexerError: the database cannot hold such tables; it says what has to be done.
        """
        self._prepare()
        with self.database.write() as connection:
            lift_timeouts(connection)
            name = f"{_schema(connection)}.{_name(collection_id, number)}"
            yield NewVectorTable(self.database, name, metric, connection)

    def check_database(self) -> None:
        """Raise `IndexerError` if the database is SQLite."""
        if not self.database.is_postgresql:
            raise IndexerError(ON_SQLITE)

    def _prepare(self) -> None:
        """Check that the database can hold such tables, and add the extension if that is possible."""
        self.check_database()
        version = self._version()
        if version is None:
            self._add_extension()
            version = self._version() or ""
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < LEAST_VERSION:
            raise IndexerError(
                f"the database has the extension vector {version}, and pgvector 0.8 or newer is needed; upgrade "
                f"pgvector on the database's machine and run `ALTER EXTENSION vector UPDATE` in it, {ELSEWHERE}"
            )
        with self.database.read() as connection:
            if connection.scalar(sa.text("SELECT to_regtype('halfvec')")) is None:
                raise IndexerError(
                    "the extension vector is in a schema of the database that is not in the search_path of its user; "
                    "add it there with `ALTER ROLE ... SET search_path`"
                )

    def unused(self) -> list[Unused]:
        """The tables of generations that the catalogue does not have or has marked as removed.

        One that another session is dropping is left out.
        """
        found = []
        for name, table in self._unused():
            with suppress(BusyError), self.database.read() as connection:
                wait_briefly(connection)
                if (size := _size(connection, table)) is not None:
                    found.append(Unused(name, size))
        return found

    def drop_unused(self) -> list[Unused]:
        """Drop them; returns those that were dropped.

        One that is being read for long, as by a dump, is left for later, and one of another owner is left to them.
        """
        dropped = []
        for name, table in self._unused():
            try:
                size = self._drop(name, table)
            except BusyError:
                logger.info("the table %s is still being read; it is dropped later", table)
            except sa.exc.ProgrammingError as exc:
                if sqlstate_of(exc) == INSUFFICIENT_PRIVILEGE:
                    logger.warning("the table %s belongs to no generation, and only its owner may drop it", table)
                elif sqlstate_of(exc) != UNDEFINED_TABLE:  # which another session has dropped meanwhile
                    raise
            else:
                if size is not None:
                    dropped.append(Unused(name, size))
        return dropped

    def _unused(self) -> list[tuple[str, str]]:
        """The names of the tables that no generation has, without and with the schema."""
        if not self.database.is_postgresql:
            return []
        with self.database.read() as connection:
            schema, kept = _schema(connection), _kept(connection)
            names = connection.exec_driver_sql(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'generation_vectors_') "
                "AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'generations'::regclass)"
            ).scalars()
            return [(name, f"{schema}.{name}") for name in sorted(names) if NAME.fullmatch(name) and name not in kept]

    def _drop(self, name: str, table: str) -> int | None:
        """Drop a table; returns its size, or None if it has become that of a generation meanwhile."""
        with self.database.write() as connection:
            wait_briefly(connection)
            connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            if name in _kept(connection):  # a build has replaced it, and recorded its own
                return None
            size = _size(connection, table)
            connection.exec_driver_sql(f"DROP TABLE {table}")
        return size

    def _version(self) -> str | None:
        with self.database.read() as connection:
            found: str | None = connection.scalar(
                sa.text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            )
            return found

    def _add_extension(self) -> None:
        with self.database.read() as connection:
            at_hand = sa.text("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
            if connection.scalar(at_hand) is None:
                raise IndexerError(
                    "the database's server does not have pgvector; install it on the server's machine (package "
                    f"postgresql-NN-pgvector, or the image pgvector/pgvector), {ELSEWHERE}"
                )
        try:
            with self.database.write() as connection:
                connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        except sa.exc.IntegrityError as exc:
            if sqlstate_of(exc) != UNIQUE_VIOLATION:  # another build has just added it
                raise
        except sa.exc.ProgrammingError as exc:
            if sqlstate_of(exc) != INSUFFICIENT_PRIVILEGE:
                raise
            raise IndexerError(
                "the database's user may not add the extension vector; run `CREATE EXTENSION vector` in the database "
                "as a user with that privilege"
            ) from exc


def _name(collection_id: int, number: int) -> str:
    return f"generation_vectors_{collection_id}_{number}"


def _schema(connection: Connection) -> str:
    """The schema of the catalogue's own tables, quoted; others in the search_path may be other installations'."""
    query = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'generations'::regclass"
    return str(connection.exec_driver_sql(query).scalar_one())


def _kept(connection: Connection) -> set[str]:
    """The names of the tables of generations."""
    kept = select(generations.c.collection_id, generations.c.number).where(generations.c.status != "removed")
    return {_name(*row) for row in connection.execute(kept)}


def _size(connection: Connection, table: str) -> int | None:
    """Bytes of a table with its indexes, for which its lock is needed; None if it does not exist."""
    query = "SELECT pg_total_relation_size(to_regclass(%(table)s))"
    size: int | None = connection.exec_driver_sql(query, {"table": table}).scalar()
    return size
