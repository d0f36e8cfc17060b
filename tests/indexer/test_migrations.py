"""Migrations, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from indexer.catalogue import create_engine
from indexer.errors import IndexerError, MismatchError
from indexer.home import Home, migrations_directory
from indexer.schema import REVISION, metadata

ROOT = Path(__file__).parents[2]


def alembic(url: str, *arguments: str) -> None:
    environment = {**os.environ, "NITAMONO_DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(sa.inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_upgrade_from_empty_then_downgrade_leaves_nothing(database_url: str) -> None:
    alembic(database_url, "upgrade", "head")
    assert tables(database_url) == {*metadata.tables, "alembic_version"}
    alembic(database_url, "downgrade", "base")
    assert tables(database_url) == {"alembic_version"}
    alembic(database_url, "upgrade", "head")
    assert tables(database_url) == {*metadata.tables, "alembic_version"}


def test_migrations_make_exactly_the_tables_of_the_schema(database_url: str, tmp_path: Path) -> None:
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        with home.catalogue.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_revision_constant_is_the_newest_migration() -> None:
    settings = Config()
    settings.set_main_option("script_location", str(migrations_directory()))
    assert ScriptDirectory.from_config(settings).get_current_head() == REVISION


def test_opening_a_home_keeps_rows_that_are_there(database_url: str, tmp_path: Path) -> None:
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        home.catalogue.ensure_collection("shop")
    with Home.open(tmp_path / "home", database_url=database_url) as home:
        assert [record.name for record in home.catalogue.collections()] == ["shop"]


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with Home.open(tmp_path / "home", create=True) as home, home.catalogue.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(MismatchError, match="schema 9999.*upgrade nitamono"):
        Home.open(tmp_path / "home")


@pytest.mark.parametrize("url", ["nonsense", "postgresql+psycopg://user:secret@127.0.0.1:1/none", "oracle+nothing://x"])
def test_a_database_that_cannot_be_used_is_named_without_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(IndexerError) as error:
        Home.open(tmp_path / "home", database_url=url, create=True)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
