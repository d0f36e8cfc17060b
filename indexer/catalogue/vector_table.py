"""The table with the vectors of a generation, in PostgreSQL with the extension pgvector: it is built, and searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Connection

from indexer.catalogue.bulk import driver_errors
from indexer.catalogue.engine import Database
from indexer.errors import BusyError, CorruptError, IndexerError
from indexer.vectors import LARGEST_HALF, Allowed, Floats, Ints, Neighbours, Shape
from training.reference import Metric

PLAIN_UP_TO = 8008  # bytes of a vector that fits on a page of 8 KiB, and is not moved out of its row
OPERATORS: dict[Metric, str] = {"cosine": "<#>", "l2": "<->"}  # smaller is nearer
CLASSES: dict[Metric, str] = {"cosine": "halfvec_ip_ops", "l2": "halfvec_l2_ops"}
REMEDY = "run `nitamono repair`"
UNDEFINED_TABLE, DISK_FULL = "42P01", "53100"
LOCK_NOT_AVAILABLE, INSUFFICIENT_PRIVILEGE = "55P03", "42501"
DROP_WAIT = "5s"  # for those who still read a table; a dump may do so for hours
QUERIES = 64  # of a statement
PLANNED = {"plan_cache_mode": "force_custom_plan", "jit": "off", "enable_seqscan": "on"}  # settings of every search
COPY_HEAD, COPY_TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"


@dataclass(frozen=True)
class VectorTable:
    """The table of a generation: `position`, from 0, and `vector`.

    Every call reads in a transaction of its own.

    Args:
        name: with its schema, so that no other schema's table can be meant.
    """

    database: Database
    name: str
    metric: Metric

    def check(self) -> None:
        """Raise `CorruptError` if it does not exist."""
        with self._connected() as connection:
            connection.exec_driver_sql(f"SELECT FROM {self.name} LIMIT 0")

    def shape(self) -> Shape:
        """What it holds.

        Raises:
            CorruptError: it does not exist.
        """
        with self._connected() as connection:
            count = int(connection.scalar(sa.text(f"SELECT count(*) FROM {self.name}")) or 0)  # noqa: S608
            kind, dim, has_graph = connection.exec_driver_sql(
                "SELECT format_type(atttypid, NULL), atttypmod, EXISTS (SELECT FROM pg_index JOIN pg_class ON "
                "pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam WHERE indrelid = attrelid AND indisvalid "
                "AND amname = 'hnsw') FROM pg_attribute WHERE attrelid = to_regclass(%(name)s) AND attname = 'vector'",
                {"name": self.name},
            ).one()
            return Shape(count, int(dim), str(kind).endswith("halfvec"), bool(has_graph))

    def proposed(
        self, queries: Floats, candidates: int, *, ef: int, visited: int, allowed: Allowed | None
    ) -> Neighbours:
        """Neighbours of `queries` `(nq, dim)` that a walk along the graph finds, `(nq, candidates)`.

        Args:
            ef: candidates that the walk keeps.
            visited: vectors that it compares at most, to find allowed ones.
        """
        settings: dict[str, object] = {
            "enable_seqscan": "off",
            "hnsw.ef_search": ef,
            "hnsw.iterative_scan": "relaxed_order",  # a strict order would leave out what is found late
            "hnsw.max_scan_tuples": visited,
        }
        where, passed = _passing_bits(allowed)
        # The walk compares with a query of 16 bits a number; the scores of what it finds are those of the query itself.
        operator = OPERATORS[self.metric]
        statement = (
            f"SELECT position, -(vector::vector {operator} {{query}}) AS score "  # noqa: S608
            f"FROM (SELECT position, vector FROM {self.name} {where} "
            f"ORDER BY vector {operator} {{walk}} LIMIT %(k)s) AS found ORDER BY score DESC, position"
        )
        return self._neighbours(statement, queries, candidates, settings, passed)

    def nearest(self, queries: Floats, k: int, allowed: Allowed | None, *, fetched: bool) -> Neighbours:
        """The nearest neighbours of `queries` `(nq, dim)`, `(nq, k)`, by comparing every allowed vector.

        Args:
            fetched: fetch the allowed vectors one by one, instead of reading all of them.
        """
        where, passed = _passing_bits(allowed)
        if fetched and allowed is not None:
            where, passed = "WHERE position = ANY(%(positions)s::integer[])", {"positions": allowed.positions.tolist()}
        # No graph serves this order: it is of vectors with 16 bits a number, if at all.
        statement = (
            f"SELECT position, -(vector::vector {OPERATORS[self.metric]} {{query}}) AS score "  # noqa: S608
            f"FROM {self.name} {where} "
            "ORDER BY score DESC, position LIMIT %(k)s"
        )
        return self._neighbours(statement, queries, k, {"enable_seqscan": "off"} if fetched else {}, passed)

    def rows_at(self, positions: Ints, dim: int) -> Floats:
        """The vectors `(m, dim)` at positions `(m,)`, in any order and repeated at will."""
        wanted, places = np.unique(positions, return_inverse=True)
        statement = (
            f"SELECT vector_send(vector::vector) FROM {self.name} "  # noqa: S608
            "WHERE position = ANY(%(positions)s::integer[]) ORDER BY position"
        )
        with self._connected() as connection:
            sent = connection.exec_driver_sql(statement, {"positions": wanted.tolist()}).scalars().all()
        if len(sent) != len(wanted):
            raise CorruptError(f"the table {self.name} lacks {len(wanted) - len(sent)} vectors; {REMEDY}")
        rows = np.frombuffer(b"".join(map(bytes, sent)), _sent(dim))["numbers"].astype(np.float32)
        found: Floats = rows[places]
        return found

    def _neighbours(
        self, statement: str, queries: Floats, k: int, settings: Mapping[str, object], passed: Mapping[str, object]
    ) -> Neighbours:
        """What a statement finds for each query; it has `{query}`, and `{walk}` for one of 16 bits a number."""
        scores = np.full((len(queries), k), -np.inf, np.float32)
        positions = np.full((len(queries), k), -1, np.int64)
        for start in range(0, len(queries), QUERIES):
            block = queries[start : start + QUERIES]
            parameters = {"k": k, **passed, **_query_parameters(block)}
            with self._connected() as connection:
                _set_locally(connection, {**PLANNED, **settings})
                rows = connection.exec_driver_sql(_for_each(statement, len(block)), parameters).all()
            if not rows:
                continue
            query, position, score = (np.array(column) for column in zip(*rows, strict=True))
            firsts = np.searchsorted(query, query)
            place = np.arange(len(query)) - firsts
            positions[start + query, place], scores[start + query, place] = position, score
        return Neighbours(scores, positions)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self.database.read() as connection:
                yield connection
        except sa.exc.ProgrammingError as exc:
            if sqlstate_of(exc) != UNDEFINED_TABLE:
                raise
            raise CorruptError(
                f"table {self.name}, which holds the generation's vectors, is missing from the database; {REMEDY}"
            ) from exc


@dataclass(frozen=True)
class NewVectorTable(VectorTable):
    """A table in the transaction that creates it; no other sees it yet."""

    connection: Connection

    def create(self, dim: int, *, halves: bool) -> None:
        """Create it empty; drops a table left by an unrecorded generation with this number.

        Raises:
            BusyError: that table is being read.
            IndexerError: it belongs to another role.
        """
        of, size = ("halfvec", 2) if halves else ("vector", 4)
        self._drop_left()
        self._run(f"CREATE TABLE {self.name} (position integer PRIMARY KEY, vector {of}({dim}) NOT NULL)")
        if size * dim <= PLAIN_UP_TO:
            self._run(f"ALTER TABLE {self.name} ALTER COLUMN vector SET STORAGE PLAIN")

    def append(self, start: int, blocks: Iterable[Floats], *, halves: bool) -> None:
        """Add vectors at the positions from `start` on, a block `(n, dim)` at a time."""
        driver: Any = self.connection.connection.driver_connection
        statement = f"COPY {self.name} FROM STDIN (FORMAT BINARY, FREEZE)"
        with driver_errors(self.connection, statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(COPY_HEAD)
            for block in blocks:
                copy.write(_copied(start, block, halves))
                start += len(block)
            copy.write(COPY_TAIL)

    def add_graph(self, links: int, candidates: int, memory: int) -> None:
        """Build an HNSW graph of the vectors so far; later ones are added to it.

        Args:
            links: of each vector; twice as many at the lowest level.
            candidates: for the links of a vector.
            memory: bytes that the graph takes, which the server is asked to hold while it builds.
        """
        self._run(
            "SELECT set_config('maintenance_work_mem', greatest(%(memory)s::bigint, "
            "pg_size_bytes(current_setting('maintenance_work_mem')) / 1024)::text, true)",
            memory=memory // 1024,
        )
        statement = (
            f"CREATE INDEX ON {self.name} USING hnsw (vector {CLASSES[self.metric]}) "
            f"WITH (m = {links}, ef_construction = {candidates})"
        )
        try:
            with self.connection.begin_nested():
                self._run(statement)
        except sa.exc.OperationalError as exc:
            if sqlstate_of(exc) != DISK_FULL:
                raise
            # Workers share the graph in /dev/shm, which is small in a container.
            self._run("SET LOCAL max_parallel_maintenance_workers = 0")
            self._run(statement)

    def analyse(self) -> None:
        """Tell the planner how many vectors there are."""
        self._run(f"ANALYZE {self.name}")

    def _drop_left(self) -> None:
        wait = self.connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
        wait_briefly(self.connection)
        try:
            self._run(f"DROP TABLE IF EXISTS {self.name}")
        except sa.exc.DBAPIError as exc:
            left = f"table {self.name}, which an unrecorded generation left in the database,"
            if sqlstate_of(exc) == LOCK_NOT_AVAILABLE:
                raise BusyError(f"{left} is being read, as by a dump; try again when that has ended") from exc
            if sqlstate_of(exc) == INSUFFICIENT_PRIVILEGE:
                raise IndexerError(f"{left} belongs to another role; drop it as its owner") from exc
            raise
        _set_locally(self.connection, {"lock_timeout": wait})

    def _run(self, statement: str, **parameters: Any) -> None:
        self.connection.exec_driver_sql(statement, parameters or None)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        yield self.connection


def _passing_bits(allowed: Allowed | None) -> tuple[str, dict[str, object]]:
    """The condition that a position is allowed, and its parameter."""
    if allowed is None:
        return "", {}
    return "WHERE get_bit(%(bits)s::bytea, position) = 1", {"bits": allowed.bits.tobytes()}


def _for_each(statement: str, count: int) -> str:
    """A statement for `count` queries that first returns the number of the query, from 0."""
    if count == 1:
        # On its own, so that the server may share the work among processes.
        of_one = statement.format(query="%(query)s::vector", walk="%(walk)s::halfvec")
        return f"SELECT 0, * FROM ({of_one}) AS near"  # noqa: S608
    of_each = statement.format(query="q.query", walk="q.walk")
    return (
        "SELECT (q.number - 1)::integer, near.* "  # noqa: S608
        "FROM unnest(%(query)s::text[]::vector[], %(walk)s::text[]::halfvec[]) "
        f"WITH ORDINALITY AS q (query, walk, number) CROSS JOIN LATERAL ({of_each}) AS near "
        "ORDER BY q.number, near.score DESC, near.position"
    )


def _query_parameters(queries: Floats) -> dict[str, object]:
    walks = np.clip(queries, -LARGEST_HALF, LARGEST_HALF)
    one = len(queries) == 1
    query, walk = ([_text(row) for row in rows] for rows in (queries, walks))
    return {"query": query[0] if one else query, "walk": walk[0] if one else walk}


def _text(vector: Floats) -> str:
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def _set_locally(connection: Connection, settings: Mapping[str, object]) -> None:
    """Settings of the server until the end of the transaction."""
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    connection.exec_driver_sql(f"SELECT {calls}")


def wait_briefly(connection: Connection) -> None:
    """Wait for locks for `DROP_WAIT` at most, until the end of the transaction."""
    _set_locally(connection, {"lock_timeout": DROP_WAIT})


def lift_timeouts(connection: Connection) -> None:
    """Let a transaction and its statements take as long as they need, whatever the server's settings are.

    PostgreSQL before 17 does not have all of them.
    """
    connection.exec_driver_sql(
        "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN "
        "('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
    )


def _sent(dim: int, number: str = ">f4") -> np.dtype[np.void]:
    """A vector as the server sends and receives it."""
    return np.dtype([("dim", ">i2"), ("unused", ">i2"), ("numbers", number, (dim,))])


def _copied(start: int, block: Floats, halves: bool) -> bytes:
    """Rows of a binary COPY: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"."""
    vector = _sent(block.shape[1], ">f2" if halves else ">f4")
    row = np.dtype(
        [("fields", ">i2"), ("size", ">i4"), ("position", ">i4"), ("vector_size", ">i4"), ("vector", vector)]
    )
    rows = np.zeros(len(block), row)
    rows["fields"], rows["size"], rows["vector_size"] = 2, 4, vector.itemsize
    rows["position"] = np.arange(start, start + len(block))
    rows["vector"]["dim"], rows["vector"]["numbers"] = block.shape[1], block
    return rows.tobytes()


def sqlstate_of(error: sa.exc.DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)
