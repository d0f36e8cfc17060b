"""Runs migrations on the connection of `indexer.catalogue.migrations`, or on the database of the environment."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import context
from sqlalchemy import Connection

from indexer.catalogue.engine import Database
from indexer.catalogue.schema import metadata


def database_url() -> str:
    if url := os.environ.get("NITAMONO_DATABASE_URL"):
        return url
    home = Path(os.environ.get("NITAMONO_HOME", "nitamono-home"))
    home.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{home / 'catalogue.sqlite'}"


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(url=database_url(), target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with Database.open(database_url()).engine.begin() as connection:
        run(connection)
