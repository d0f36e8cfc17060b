"""Inserting many rows: COPY on PostgreSQL, whose driver would send them one by one, and one statement on SQLite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, Table

TYPES: dict[type[Any], str] = {  # of PostgreSQL
    sa.BigInteger: "int8",
    sa.Integer: "int4",
    sa.String: "text",
    sa.Boolean: "bool",
    sa.DateTime: "timestamptz",
    sa.LargeBinary: "bytea",
    sa.JSON: "jsonb",
}


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *returning: Column[Any]
) -> list[tuple[Any, ...]]:
    """Insert rows, all with the same columns and none with an id; ids rise in their order.

    Returns:
        The values of the columns `returning` of each row, in any order.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        return _copy_rows(connection, table, rows, returning)
    insert = sa.insert(table)
    if not returning:
        connection.execute(insert, rows)
        return []
    return [tuple(row) for row in connection.execute(insert.returning(*returning), rows)]


def _copy_rows(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], returning: Sequence[Column[Any]]
) -> list[tuple[Any, ...]]:
    from psycopg.types.json import Jsonb

    if "id" in table.c:
        reserved = sa.func.nextval(sa.func.pg_get_serial_sequence(table.name, "id"))
        ids = connection.scalars(sa.select(reserved).select_from(sa.func.generate_series(1, len(rows))))
        rows = [{"id": row_id, **row} for row_id, row in zip(ids, rows, strict=True)]
    columns = [table.c[name] for name in rows[0]]
    types = [_type_of(column) for column in columns]
    statement = f"COPY {table.name} ({', '.join(column.name for column in columns)}) FROM STDIN (FORMAT BINARY)"
    driver: Any = connection.connection.driver_connection
    with driver_errors(connection, statement), driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(
                [Jsonb(value) if kind == "jsonb" else value for kind, value in zip(types, row.values(), strict=True)]
            )
    return [tuple(row[column.name] for column in returning) for row in rows]


@contextmanager
def driver_errors(connection: Connection, statement: str) -> Iterator[None]:
    """Wrap the driver's own exceptions as SQLAlchemy does."""
    import psycopg

    try:
        yield
    except psycopg.Error as exc:
        raise sa.exc.DBAPIError.instance(statement, None, exc, psycopg.Error, dialect=connection.dialect) from exc


def _type_of(column: Column[Any]) -> str:
    kind = getattr(column.type, "impl", column.type)
    return next(name for base, name in TYPES.items() if isinstance(kind, base))
