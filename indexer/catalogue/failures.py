"""Failures of the catalogue's database, as our errors."""

from __future__ import annotations

import sqlite3

import sqlalchemy as sa

from indexer.errors import (
    BusyError,
    CatalogueError,
    DamagedCatalogueError,
    DiskFullError,
    IndexerError,
    LostCatalogueError,
    ReadOnlyError,
)

NOT_WRITTEN = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_FSYNC)
WAY_BACK = "stop what uses the home, move it away, and restore a backup: `nitamono restore BACKUP --home HOME`"


def translated(error: sa.exc.DBAPIError, shown: str) -> IndexerError | None:
    """The error that a driver's exception means; None for one that only a bug can cause.

    Args:
        shown: the catalogue's name in messages.
    """
    reason = (str(error.orig).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error.orig, sqlite3.Error):
        found = of_sqlite(error.orig, shown)
    else:
        found = _of_postgresql(str(getattr(error.orig, "sqlstate", None)), reason, shown)
    if found is None and isinstance(error, sa.exc.OperationalError):
        if isinstance(error.orig, sqlite3.Error):  # such as a missing table
            return IndexerError(f"{shown} failed ({reason})")
        return CatalogueError(f"{shown} cannot be used ({reason})")  # such as a server that does not answer
    return found


def damaged(shown: str, reason: str) -> DamagedCatalogueError:
    return DamagedCatalogueError(f"{shown} is damaged ({reason}); {WAY_BACK}")


def of_sqlite(error: sqlite3.Error, shown: str) -> IndexerError | None:
    """The error that one of SQLite means; see https://www.sqlite.org/rescode.html."""
    reason = str(error)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # missing if the driver itself fails
    if code in NOT_WRITTEN:
        return DiskFullError(f"{shown} cannot be written ({reason}): the disk or a quota is full, or the disk fails")
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BusyError(f"another process is writing the catalogue ({reason}); try again")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(shown, reason)
        case sqlite3.SQLITE_FULL:
            return DiskFullError(f"{shown} cannot be written ({reason}); free some disk space and try again")
        case sqlite3.SQLITE_READONLY if code == sqlite3.SQLITE_READONLY_DBMOVED:
            return LostCatalogueError(f"{shown} was moved or deleted while it was in use; {WAY_BACK}")
        case sqlite3.SQLITE_READONLY:
            return ReadOnlyError(f"{shown} is read-only ({reason}); allow writing to the home")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            return CatalogueError(f"{shown} cannot be used ({reason})")
    return damaged(shown, reason) if reason.startswith("Could not decode to UTF-8") else None


def _of_postgresql(sqlstate: str, reason: str, shown: str) -> IndexerError | None:
    """The error that an SQLSTATE means; see https://www.postgresql.org/docs/current/errcodes-appendix.html."""
    if sqlstate == "55P03":  # lock_not_available
        return BusyError(f"another process is writing the catalogue ({reason}); try again")
    if sqlstate == "53100":  # disk_full
        return DiskFullError(f"{shown} cannot be written ({reason}); free some disk space and try again")
    if sqlstate in ("25P03", "25P04"):  # idle_in_transaction_session_timeout, transaction_timeout
        return CatalogueError(f"{shown} cannot be used ({reason})")
    if sqlstate == "25006":  # read_only_sql_transaction
        return ReadOnlyError(f"{shown} is read-only ({reason})")
    if sqlstate in ("XX001", "XX002"):  # data_corrupted, index_corrupted
        return DamagedCatalogueError(f"{shown} is damaged ({reason}); restore the database from its dump")
    return None
