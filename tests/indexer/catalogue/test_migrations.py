"""Migrations, on a real SQLite file and a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from indexer.catalogue.engine import Database
from indexer.catalogue.home import Home
from indexer.catalogue.migrations import migrations_directory
from indexer.catalogue.schema import REVISION, metadata
from indexer.errors import IndexerError, MismatchError

ROOT = Path(__file__).parents[3]


def alembic(url: str, *arguments: str) -> None:
    environment = {**os.environ, "NITAMONO_DATABASE_URL": url}
    command = [sys.executable, "-m", "alembic", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tables(url: str) -> set[str]:
    engine = Database.open(url).engine
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
        with home.catalogue.database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


MOMENT = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
FIRST: dict[str, dict[str, Any]] = {  # a row of every table of revision 0001, in an order that foreign keys allow
    "collections": {"id": 7, "name": "shop", "created_at": MOMENT},
    "items": {
        "id": 5, "collection_id": 7, "item_id": "bag/1", "title": "Bag", "attributes": {"colour": "red"},
        "created_at": MOMENT, "updated_at": MOMENT,
    },
    "images": {
        "id": 3, "item_pk": 5, "uri": "/shop/bag.jpg", "mask_uri": None, "sha256": "a" * 64, "size": 2**33,
        "mtime_ns": 2**60, "width": 40, "height": 30, "status": "ok", "reason": None,
    },
    "rejects": {
        "id": 2, "collection_id": 7, "source": "/shop", "place": "row 4", "item_id": None, "image": None,
        "reason": "no image", "at": MOMENT,
    },
    "encoders": {
        "encoder_id": "e" * 64, "family": "vae", "dim": 2, "metric": "l2", "config": {"latent_dim": 2},
        "card": {"name": "Täschchen"}, "created_at": MOMENT,
    },
    "vectors": {"image_id": 3, "sha256": "a" * 64, "encoder_id": "e" * 64, "vector": b"\0\1\2\3\4\5\6\7"},
    "generations": {
        "id": 4, "collection_id": 7, "number": 1, "encoder_id": "e" * 64, "status": "active", "count": 1,
        "recall_at_10": 0.96875, "factory": "Flat", "watermark": 9, "manifest_sha256": "b" * 64,
        "created_at": MOMENT, "activated_at": MOMENT,
    },
    "changes": {
        "id": 9, "collection_id": 7, "at": MOMENT, "kind": "added", "item_pk": 5, "item_id": "bag/1", "live": True,
    },
    "api_keys": {
        "id": 6, "name": "page", "scope": "read", "key_hash": "c" * 64, "created_at": MOMENT, "revoked_at": None,
    },
}  # fmt: skip


def rows_of(url: str, names: set[str]) -> dict[str, list[dict[str, Any]]]:
    """All rows of tables as the database has them, whatever the schema of today says."""
    engine = Database.open(url).engine
    try:
        with engine.connect() as connection:
            found = sa.MetaData()
            found.reflect(connection, only=sorted(names))
            return {
                name: [dict(row) for row in connection.execute(sa.select(found.tables[name])).mappings()]
                for name in names
            }
    finally:
        engine.dispose()


def test_rows_of_the_first_revision_are_kept_upwards_and_downwards(database_url: str, tmp_path: Path) -> None:
    alembic(database_url, "upgrade", "0001")
    assert tables(database_url) == {*FIRST, "alembic_version"}
    engine = Database.open(database_url).engine
    with engine.begin() as connection:
        for name, row in FIRST.items():
            connection.execute(sa.insert(metadata.tables[name]).values(row))
    engine.dispose()
    before = rows_of(database_url, set(FIRST))
    assert all(len(rows) == 1 for rows in before.values())
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        assert tables(database_url) == {*metadata.tables, "alembic_version"}
        assert first_columns(rows_of(database_url, set(FIRST))) == before
        state = home.catalogue.search_state("shop")
        assert (state.collection_id, state.generation, state.encoder_id) == (7, 1, "e" * 64)
        assert (state.watermark, state.last_change, state.calibrated_at) == (9, 9, None)
        assert home.catalogue.items.get("shop", "bag/1").attributes == {"colour": "red"}
        stored = home.catalogue.vectors.of_items("e" * 64, 2, [5])
        assert stored.ids.tolist() == [[3, 5]] and stored.vectors.tobytes() == FIRST["vectors"]["vector"]
        assert [encoder.card for encoder in home.catalogue.encoders.all()] == [{"name": "Täschchen"}]
        assert home.catalogue.retrains.all("shop") == []
        assert home.catalogue.retrains.add(7, {"recipes": ["pca"]}) == 1
        home.catalogue.calibrations.put(7, "e" * 64, {"tried": 1})
        home.catalogue.queries.add(7, "e" * 64, [(MOMENT, np.zeros(2, np.float32))], keep=5)
    alembic(database_url, "downgrade", "0001")
    assert tables(database_url) == {*FIRST, "alembic_version"}
    assert rows_of(database_url, set(FIRST)) == before
    Home.open(tmp_path / "home", database_url=database_url).close()
    assert first_columns(rows_of(database_url, set(FIRST))) == before
    assert rows_of(database_url, {"retrains", "calibrations", "recent_queries"}) == {
        "retrains": [], "calibrations": [], "recent_queries": [],
    }  # fmt: skip


def first_columns(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows without the columns that later revisions added."""
    return {name: [{column: row[column] for column in FIRST[name]} for row in found] for name, found in rows.items()}


@pytest.mark.parametrize(
    ("uri", "live", "source"),
    [("blob:" + "a" * 64, True, "http:"), ("blob:" + "a" * 64, False, None), ("/shop/bag.jpg", True, None)],
)
def test_uploads_of_earlier_versions_belong_to_http(
    database_url: str, tmp_path: Path, uri: str, live: bool, source: str | None
) -> None:
    alembic(database_url, "upgrade", "0001")
    engine = Database.open(database_url).engine
    with engine.begin() as connection:
        for name, row in FIRST.items():
            changed = {"images": {"uri": uri}, "changes": {"live": live}}.get(name, {})
            connection.execute(sa.insert(metadata.tables[name]).values(row | changed))
    engine.dispose()
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        assert [image.source for image in home.catalogue.images.stored(7)] == [source]
        assert home.catalogue.items.written_over_http(7) == ({"bag/1"} if source else set())


def test_revision_constant_is_the_newest_migration() -> None:
    settings = Config()
    settings.set_main_option("script_location", str(migrations_directory()))
    assert ScriptDirectory.from_config(settings).get_current_head() == REVISION


def test_opening_a_home_keeps_rows_that_are_there(database_url: str, tmp_path: Path) -> None:
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        home.catalogue.ensure_collection("shop")
    with Home.open(tmp_path / "home", database_url=database_url) as home:
        assert [record.name for record in home.catalogue.collections.all()] == ["shop"]


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
