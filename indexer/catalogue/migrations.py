"""Brings a database to this version's schema; the migrations themselves are in `alembic/versions`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import sqlalchemy as sa

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import REVISION
from indexer.errors import IndexerError, MismatchError


def migrate(database: Database, home: Path, lock: Callable[[], AbstractContextManager[None]]) -> None:
    """Run the migrations that a database lacks, under a lock among processes.

    Raises:
        MismatchError: a newer version wrote the database.
        IndexerError: the database cannot be used, see `Database.read`, or written to.
    """
    try:
        if _revision(database) == REVISION:
            return
        with lock():
            found = _revision(database)
            if found != REVISION:
                _upgrade(database, home, found)
    except sa.exc.DBAPIError as exc:  # such as a database user who may not create tables
        reason = str(exc.orig).splitlines()[0] if exc.orig else type(exc).__name__
        raise IndexerError(f"the catalogue of {home} cannot be opened ({reason})") from exc


def _upgrade(database: Database, home: Path, found: str | None) -> None:
    from alembic import command, config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    settings = config.Config()
    settings.set_main_option("script_location", str(migrations_directory()))
    try:
        if found is not None:
            ScriptDirectory.from_config(settings).get_revision(found)
    except CommandError as exc:
        raise MismatchError(
            f"the catalogue of {home} has schema {found}, this version knows up to {REVISION}; upgrade nitamono"
        ) from exc
    with database.write() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")


def _revision(database: Database) -> str | None:
    with database.read() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return revision


def migrations_directory() -> Path:
    """The migrations beside the packages (a checkout) or where the wheel put them."""
    import sysconfig

    beside = Path(__file__).parents[2] / "alembic"
    is_checkout = (beside / "env.py").is_file()  # beside installed packages lies the library alembic itself
    return beside if is_checkout else Path(sysconfig.get_path("data")) / "share" / "nitamono" / "alembic"
