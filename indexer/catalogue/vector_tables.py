"""The tables with vectors of generations, beside the catalogue's own in PostgreSQL with the extension pgvector.

A generation has one table, whose name says its collection and number. It is created, filled and indexed in the
transaction that records the generation, so a killed build leaves nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import select

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import generations
from indexer.catalogue.vector_table import NewVectorTable, VectorTable, sqlstate_of
from indexer.errors import BusyError, IndexerError
from training.reference import Metric

logger = logging.getLogger("nitamono")

NAME = re.compile(r"generation_vectors_\d+_\d+")
LEAST_VERSION = (0, 8)  # of pgvector: the first with iterative scans, which a filter needs
DROP_WAIT = "5s"  # for those who still read a table; a dump may do so for hours
INSUFFICIENT_PRIVILEGE = "42501"
ELSEWHERE = "or leave out NITAMONO_VECTORS=pgvector, for indexes in files"
ON_SQLITE = f"NITAMONO_VECTORS=pgvector needs a catalogue in PostgreSQL; set NITAMONO_DATABASE_URL, {ELSEWHERE}"


class Unused(NamedTuple):
    """A table that no generation has, and its size with its indexes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class VectorTables:
    """The tables with vectors of a database."""

    database: Database

    def of(self, collection_id: int, number: int, metric: Metric) -> VectorTable:
        """The table of a generation, which need not exist."""
        return VectorTable(self.database, _name(collection_id, number), metric)

    @contextmanager
    def new(self, collection_id: int, number: int, metric: Metric) -> Iterator[NewVectorTable]:
        """The table of a generation, to be built and recorded within a transaction, which ends with the block.

        Raises:
            IndexerError: the database cannot hold such tables; it says what has to be done.
        """
        self._prepare()
        with self.database.write() as connection:
            yield NewVectorTable(self.database, _name(collection_id, number), metric, connection)

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
        """The tables of generations that the catalogue does not have or has marked as removed."""
        if not self.database.is_postgresql:
            return []
        kept = select(generations.c.collection_id, generations.c.number).where(generations.c.status != "removed")
        with self.database.read() as connection:
            known = {_name(*row) for row in connection.execute(kept)}
            tables = connection.exec_driver_sql(
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
                "WHERE relkind = 'r' AND pg_table_is_visible(oid) AND starts_with(relname, 'generation_vectors_')"
            ).all()
        return [Unused(name, size) for name, size in sorted(tables) if NAME.fullmatch(name) and name not in known]

    def drop_unused(self) -> None:
        """Drop them; one that is being read for long, as by a dump, is left for later."""
        for name, _ in self.unused():
            try:
                with self.database.write() as connection:
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{DROP_WAIT}'")
                    connection.exec_driver_sql(f"DROP TABLE IF EXISTS {name}")
            except BusyError:
                logger.info("the table %s is still being read; it is dropped later", name)

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
        except sa.exc.ProgrammingError as exc:
            if sqlstate_of(exc) != INSUFFICIENT_PRIVILEGE:
                raise
            raise IndexerError(
                "the database's user may not add the extension vector; run `CREATE EXTENSION vector` in the database "
                "as one who may"
            ) from exc


def _name(collection_id: int, number: int) -> str:
    return f"generation_vectors_{collection_id}_{number}"
