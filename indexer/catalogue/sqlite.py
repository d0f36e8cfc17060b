"""An SQLite catalogue's file: how it is opened, and whether it is still the file that was opened.

SQLite writes on into a file that was deleted or replaced under it, and into a write-ahead log (WAL) likewise, and what
is written then is lost. Therefore every transaction begins, and every write ends, with a comparison of the paths with
the files that were opened. They are not opened for that: closing one would release SQLite's locks in this process.

A home that cannot be written to is opened read-only. With a WAL, SQLite can read it as it is; without one, only as
immutable, so such a connection is replaced as soon as the file changes.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, event

from indexer.catalogue.failures import WAY_BACK, damaged, of_sqlite
from indexer.errors import LostCatalogueError

Mode = Literal["writable", "read-only", "immutable"]
OPTIONS: dict[Mode, str] = {"writable": "mode=rw", "read-only": "mode=ro", "immutable": "mode=ro&immutable=1"}
CHECK_WAIT = 5.0  # seconds that a check of the structure waits for other processes
Stamp = tuple[int, int, int, int] | None  # device, inode, size and time of modification; None for a missing file


class SqliteFile:
    """The file of a catalogue, and the connections of an engine to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name, self._folder = str(path), str(path.parent)  # every transaction needs them; a Path costs more
        self._wal = f"{path}-wal"
        self._opened: tuple[int, int] | None = None  # device and inode

    def attach(self, engine: Engine) -> None:
        """Open and check each connection of an engine; to be called before other listeners of `connect` are added."""
        event.listen(engine, "do_connect", self._open)
        event.listen(engine, "checkout", self._replace_outdated)

    def remember(self, record: Any) -> None:
        """Note which files a new connection has opened."""
        found = _stamp(self._name)
        if self._opened is None and found is not None:
            self._opened = found[:2]
        record.info.update(file=found, wal=_inode(self._wal))

    @property
    def mode(self) -> Mode:
        """How the file can be opened."""
        if self._may_write() or not self.path.exists():
            return "writable"
        return "read-only" if os.path.exists(self._wal) else "immutable"

    def check(self, connection: Connection) -> None:
        """Check that the files of a connection are still in their place.

        Raises:
            LostCatalogueError: the database or its write-ahead log was deleted or replaced.
            DamagedCatalogueError: the database is empty.
        """
        self._check_place()
        if connection.info["mode"] == "writable" and _inode(self._wal) != connection.info["wal"]:
            raise LostCatalogueError(
                f"{self._wal} was deleted or replaced while it was in use, and with it the last changes; {WAY_BACK}"
            )

    def check_structure(self) -> None:
        """Read the whole database, on a connection of its own that has no cached pages.

        Raises:
            LostCatalogueError, DamagedCatalogueError: as for `check`, or the structure is wrong.
        """
        self._check_place()
        mode = self.mode
        uri = self._uri("read-only" if mode == "writable" else mode)
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=CHECK_WAIT)) as connection:
                found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        except sqlite3.Error as exc:
            raise of_sqlite(exc, self.shown) or exc from exc
        if found != "ok":
            raise damaged(self.shown, " ".join(found.split()))

    @property
    def shown(self) -> str:
        return f"the catalogue {self.path}"

    def _uri(self, mode: Mode) -> str:
        return f"file:{quote(str(self.path))}?{OPTIONS[mode]}"

    def _open(self, _dialect: object, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        """Never create the file again after it was lost."""
        record.info["mode"] = mode = self.mode
        if self._opened is None and not self.path.exists():
            return
        self._check_place()
        arguments[0] = self._uri(mode)
        options["uri"] = True

    def _replace_outdated(self, _connection: object, record: Any, _proxy: object) -> None:
        """Let the pool open a new connection if the file can be opened in another way now, or must be read again."""
        if record.info["mode"] == "writable" and self._may_write():
            return
        found = _stamp(self._name)
        if found is None:
            return  # `check` tells; this connection keeps the inode from being used again
        if self.mode != record.info["mode"] or (self.mode == "immutable" and found != record.info["file"]):
            raise sa.exc.DisconnectionError

    def _may_write(self) -> bool:
        return os.access(self._folder, os.W_OK) and os.access(self._name, os.W_OK)

    def _check_place(self) -> None:
        found = _stamp(self._name)
        if self._opened is not None and (found is None or found[:2] != self._opened):
            what = "deleted" if found is None else "replaced by another file"
            raise LostCatalogueError(
                f"{self.shown} was {what} while it was in use; put the file back, or {WAY_BACK}; then start again"
            )
        if self._opened is not None and found is not None and not found[2]:
            raise damaged(self.shown, "the file is empty")


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _inode(path: str) -> tuple[int, int] | None:
    found = _stamp(path)
    return None if found is None else found[:2]
