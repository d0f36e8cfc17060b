"""Generations whose vectors are in tables of PostgreSQL: built, searched, removed, lost and built again."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from indexer.backup.backup import back_up
from indexer.backup.restore import restore
from indexer.catalogue import vector_table
from indexer.catalogue.home import Home
from indexer.catalogue.vector_table import NewVectorTable
from indexer.errors import CatalogueError, CorruptError, IndexerError
from indexer.generations.build import build_generation
from indexer.generations.manifest import Manifest
from indexer.generations.store import KEEP, remove_damaged, verify
from indexer.ingest.clean import clean
from indexer.ingest.folding import fold
from indexer.ingest.ingest import index_source
from indexer.ingest.items import put_item
from indexer.ingest.repair import repair
from indexer.search import searcher
from indexer.search.searcher import Searcher
from indexer.search.view import View, load_view
from indexer.vectors import IndexOptions, Kind, building
from indexer.vectors.building import Plan
from indexer.vectors.engines import Engine, build_index
from indexer.vectors.pgvector import PgvectorIndex, chosen_kind
from tests import postgres
from tests.commands import kill_when, run, start
from tests.conftest import write_photos
from tests.indexer.search.pages import change_live, check_every_page, jpeg, names, write_coloured

FLAT, HNSW = "pgvector Flat", "pgvector HNSW16,halfvec"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few photos may get a graph, and it is walked as if comparing them all took longer."""
    monkeypatch.setattr(building, "LEAST_APPROXIMATE", 40)
    monkeypatch.setattr(building, "HELD_OUT", 10)
    monkeypatch.setattr(PgvectorIndex, "cost", lambda self, effort: 0.0 if effort < 100 else 10**9)


@pytest.fixture
def home(tmp_path: Path, postgres_url: str) -> Iterator[Home]:
    with opened(tmp_path / "home", postgres_url) as home:
        yield home


def opened(path: Path, url: str, vectors: Engine = "pgvector") -> Home:
    return Home.open(path, database_url=url, vectors=vectors, create=True)


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def tables(url: str) -> list[str]:
    with connected(url) as connection:
        found = connection.execute("SELECT relname FROM pg_class WHERE relname ~ '^generation_vectors_[0-9_]+$'")
        return sorted(name for (name,) in found)


def index_as(home: Home, source: Path, encoder_dir: Path, kind: Kind, recall: float | None = None) -> None:
    """Index a source, with an index of a kind."""
    index_source(
        home, "default", source, encoder_ref=str(encoder_dir), processes=0,
        choose_index=lambda old: old.changed(kind, recall, None),
    )  # fmt: skip


def manifest(home: Home) -> Manifest:
    number = home.catalogue.search_state("default").generation
    assert number is not None and verify(home, "default", number) == []
    return Manifest.read(home.generation_directory("default", number))


@pytest.mark.parametrize(("kind", "factory"), [pytest.param("flat", FLAT, marks=pytest.mark.slow), ("hnsw", HNSW)])
def test_pages_filters_and_live_changes(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, kind: Kind, factory: str
) -> None:
    """Then the changes are folded into another generation; tables of old generations are dropped."""
    source = write_coloured(tmp_path / "shop", 48)
    index_as(home, source, encoder_dir, kind, 0.9)
    first = manifest(home)
    assert first.factory == factory and bool(first.search_parameters) == (kind == "hnsw")
    assert "index.faiss" not in first.sha256
    searcher = Searcher(home)
    change_live(home, searcher)
    check_every_page(home, searcher, atol=2e-3)
    for number in range(KEEP):
        fold(home, "default")
        assert manifest(home).number == number + 2
        put_item(home, searcher, "default", "new", title=None, attributes={}, images=[jpeg(90 + number)])
    assert tables(postgres_url) == [f"generation_vectors_1_{number}" for number in range(2, KEEP + 2)]
    check_every_page(home, searcher, atol=2e-3)
    for rerank in ("expand", "reciprocal"):
        page = searcher.search_item("default", "item-3", k=5, rerank=rerank)
        assert names(page)[0] == "copy-3"


def test_the_setting_chooses_the_engine_of_the_next_generation_and_the_manifest_the_one_that_reads(
    tmp_path: Path, encoder_dir: Path, postgres_url: str
) -> None:
    shop = write_photos(tmp_path / "shop", 6)

    def indexed(vectors: Engine) -> tuple[int, str]:
        with opened(tmp_path / "home", postgres_url, vectors) as home:
            index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
            return manifest(home).number, manifest(home).factory

    assert [indexed(vectors) for vectors in ("faiss", "pgvector", "pgvector")] == [(1, "Flat"), (2, FLAT), (2, FLAT)]
    with opened(tmp_path / "home", postgres_url, "faiss") as home:
        assert Searcher(home).search_image("default", jpeg(3), k=3).generation == 2
    assert indexed("faiss") == (3, "Flat")


def test_files_are_written_before_the_table_so_that_it_is_locked_briefly(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[str]] = []

    def create(self: NewVectorTable, dim: int, *, halves: bool) -> None:
        found.append(sorted(file.name for file in home.path.rglob("collections/*/generations/.building-*/*.np?")))
        created(self, dim, halves=halves)

    created = NewVectorTable.create
    monkeypatch.setattr(NewVectorTable, "create", create)
    index_source(home, "default", write_photos(tmp_path / "a", 4), encoder_ref=str(encoder_dir), processes=0)
    assert found == [["ids.npy", "neighbours.npy"]] and manifest(home).factory == FLAT


@pytest.mark.slow
def test_a_killed_build_leaves_no_table(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does one that fails; the next indexing builds the same generation."""
    shop = write_photos(tmp_path / "shop", 12)
    monkeypatch.setenv("NITAMONO_DATABASE_URL", postgres_url)
    monkeypatch.setenv("NITAMONO_VECTORS", "pgvector")
    words = ("index", shop, "--home", home.path, "--encoder", encoder_dir, "--processes", "0")

    with connected(postgres_url) as watching:

        def is_building() -> bool:
            time.sleep(0.01)
            found = watching.execute(
                "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND locktype = 'relation' AND granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            return found.fetchone() is not None

        assert kill_when(start(*words), is_building)
        until = time.monotonic() + 20
        while is_building() and time.monotonic() < until:
            pass
    assert tables(postgres_url) == [] and not home.catalogue.generations.all("default")
    assert run(*words).returncode == 0
    assert tables(postgres_url) == ["generation_vectors_1_1"] and manifest(home).number == 1


@pytest.mark.parametrize("step", ["append", "add_graph"])
def test_a_build_whose_connection_is_lost_says_so_and_leaves_no_table(home: Home, postgres_url: str, step: str) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    with connected(postgres_url) as connection:
        connection.execute("CREATE EXTENSION vector")
        with pytest.raises(CatalogueError, match="cannot be used .*connection"):
            with home.catalogue.vector_tables.new(7, 1, "l2") as table:
                table.create(5, halves=True)
                pid = table.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
                if step == "append":
                    table.append(0, [vectors], halves=True)
                else:
                    table.add_graph(16, 64, 10**6)
        assert tables(postgres_url) == [] == home.catalogue.collections.all()


def test_a_table_without_a_generation_is_removed_by_clean(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str
) -> None:
    """As it is left where a dump of older rows was restored over it; the catalogue's own tables stay."""
    index_source(home, "default", write_photos(tmp_path / "a", 4), encoder_ref=str(encoder_dir), processes=0)
    with connected(postgres_url) as connection:
        connection.execute("CREATE TABLE generation_vectors_1_2 AS SELECT * FROM generation_vectors_1_1")
        connection.execute("CREATE TABLE generation_vectors_of_someone_else ()")
    assert [(left.kind, left.path.name) for left in clean(home, dry_run=True).removed] == [
        ("table", "generation_vectors_1_2")
    ]
    assert tables(postgres_url) == ["generation_vectors_1_1", "generation_vectors_1_2"]
    clean(home)
    assert tables(postgres_url) == ["generation_vectors_1_1"] and clean(home).removed == []
    manifest(home)
    with connected(postgres_url) as connection:
        assert connection.execute("SELECT to_regclass('generation_vectors_of_someone_else')").fetchone() != (None,)


def test_a_table_that_is_being_dumped_is_dropped_later(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Indexing does not wait for the end of a dump, which reads all tables in one transaction."""
    monkeypatch.setattr(vector_table, "DROP_WAIT", "50ms")
    index_source(home, "default", write_photos(tmp_path / "a", 4), encoder_ref=str(encoder_dir), processes=0)
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as dump:
        dump.execute("LOCK TABLE generation_vectors_1_1 IN ACCESS SHARE MODE")
        for _ in range(KEEP):
            build_generation(home, "default", home.catalogue.encoders.all()[0])
        assert "generation_vectors_1_1" in tables(postgres_url)
    clean(home)
    assert tables(postgres_url) == [f"generation_vectors_1_{number}" for number in range(2, KEEP + 2)]


@pytest.mark.parametrize(
    ("means", "harm"),
    [
        ("index", "DROP TABLE {}"),  # indexing looks whether there is a table, repair at what is in it
        ("repair", "DROP TABLE {}"),
        pytest.param("repair", "DELETE FROM {} WHERE position = 3", marks=pytest.mark.slow),
        pytest.param("repair", "DROP INDEX {}_vector_idx", marks=pytest.mark.slow),
    ],
)
def test_a_lost_table_is_built_again(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, means: str, harm: str
) -> None:
    shop = write_photos(tmp_path / "shop", 48)
    index_as(home, shop, encoder_dir, "hnsw")
    held = Searcher(home)
    expected = held.search_image("default", jpeg(5), k=5)
    with connected(postgres_url) as connection:
        connection.execute(harm.format("generation_vectors_1_1"))
    if harm.startswith("DROP TABLE"):
        for searcher in (held, Searcher(home)):
            with pytest.raises(
                CorruptError, match=r"table public\.generation_vectors_1_1, .* is missing.*`nitamono repair`"
            ):
                searcher.search_image("default", jpeg(5), k=5)
    assert verify(home, "default", 1) != []
    if means == "repair":
        assert repair(home).rebuilt == {"default": 2}
    else:
        index_source(home, "default", shop, processes=0)
    assert manifest(home).number == 2 and tables(postgres_url) == ["generation_vectors_1_2"]
    for searcher in (held, Searcher(home)):
        found = searcher.search_image("default", jpeg(5), k=5)
        assert names(found) == names(expected)


def test_a_table_with_other_rows_is_not_searched(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str
) -> None:
    index_source(home, "default", write_photos(tmp_path / "shop", 12), encoder_ref=str(encoder_dir))
    (table,) = tables(postgres_url)
    with connected(postgres_url) as connection:
        connection.execute(f"DELETE FROM {table} WHERE position < 3")  # type: ignore[arg-type]
    with pytest.raises(CorruptError, match=r"its index holds 9 vectors of 768 numbers and 12 ids.*nitamono repair"):
        Searcher(home).search_image("default", jpeg(0))


def test_a_search_whose_table_was_removed_is_answered_from_the_new_one(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that loads the new generation slowly still searches the old one."""
    source = write_photos(tmp_path / "shop", 48)
    index_source(home, "default", source, encoder_ref=str(encoder_dir))
    slow = Searcher(home)
    assert slow.search_image("default", jpeg(0)).generation == 1
    index_as(home, source, encoder_dir, "hnsw")
    remove_damaged(home, "default", 1)

    def load_slowly(*arguments: Any) -> View:
        time.sleep(0.5)
        return load_view(*arguments)

    monkeypatch.setattr(searcher, "load_view", load_slowly)
    monkeypatch.setattr(searcher, "PATIENCE", 0.0)
    page = slow.search_image("default", jpeg(0), k=20)
    assert (page.generation, page.total) == (2, 48)


@pytest.mark.parametrize("with_tables", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_backup_and_a_dump_restore_a_home_that_answers(
    home: Home, tmp_path: Path, encoder_dir: Path, postgres_url: str, postgres_server: str, with_tables: bool
) -> None:
    """A dump may leave out the tables of vectors, which `repair` builds again."""
    index_source(home, "default", write_photos(tmp_path / "shop", 8), encoder_ref=str(encoder_dir), processes=0)
    expected = names(Searcher(home).search_image("default", jpeg(5), k=5))
    dump, without = tmp_path / "dump", [] if with_tables else ["--exclude-table=generation_vectors_*"]
    plain = postgres_url.replace("+psycopg", "")
    subprocess.run(
        [postgres.program("pg_dump"), "--format=custom", f"--file={dump}", *without, plain], check=True, cwd="/"
    )
    back_up(home, tmp_path / "backup")
    with postgres.database(postgres_server) as url:
        target = url.replace("+psycopg", "")
        subprocess.run([postgres.program("pg_restore"), f"--dbname={target}", dump], check=True, cwd="/")
        restore(tmp_path / "backup", tmp_path / "new")
        with opened(tmp_path / "new", url) as restored:
            if not with_tables:
                with pytest.raises(CorruptError, match="run `nitamono repair`"):
                    Searcher(restored).search_image("default", jpeg(5), k=5)
                assert repair(restored).problems == []
            assert names(Searcher(restored).search_image("default", jpeg(5), k=5)) == expected
            manifest(restored)


def test_what_is_missing_is_named_with_a_remedy(
    tmp_path: Path, encoder_dir: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NITAMONO_VECTORS", "milvus")
    with pytest.raises(IndexerError, match="NITAMONO_VECTORS is 'milvus'; write faiss or pgvector"):
        Home.open(tmp_path / "sqlite", create=True)
    monkeypatch.setenv("NITAMONO_VECTORS", "pgvector")
    with pytest.raises(IndexerError, match="needs a catalogue in PostgreSQL; set NITAMONO_DATABASE_URL"):
        Home.open(tmp_path / "sqlite", create=True)
    assert not (tmp_path / "sqlite").exists()
    write_photos(tmp_path / "shop", 2)

    def refused(reason: str) -> None:
        with opened(tmp_path / "home", postgres_url) as home, pytest.raises(IndexerError, match=reason):
            index_source(home, "default", tmp_path / "shop", encoder_ref=str(encoder_dir), processes=0)

    with connected(postgres_url) as connection:
        database = connection.info.dbname
        connection.execute(f"ALTER DATABASE \"{database}\" SET extension_control_path = '/nowhere'")
        refused("server does not have pgvector; install it on the server's machine .*pgvector/pgvector")
        connection.execute(f'ALTER DATABASE "{database}" RESET extension_control_path')
        connection.execute("CREATE SCHEMA elsewhere")
        connection.execute("CREATE EXTENSION vector SCHEMA elsewhere")
        refused("in a schema .* not in the search_path .*ALTER ROLE")
        connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
        refused(r"extension vector 0\.7\.4, and pgvector 0\.8 or newer is needed; .*ALTER EXTENSION vector UPDATE")
        assert tables(postgres_url) == []


def test_a_user_who_may_not_add_the_extension_is_told_who_may(
    tmp_path: Path, encoder_dir: Path, postgres_url: str
) -> None:
    with connected(postgres_url) as connection:
        role = f"user{time.monotonic_ns()}"
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {role}")
        shop = write_photos(tmp_path / "shop", 48)
        with opened(tmp_path / "home", postgres_url.replace("nitamono@", f"{role}@")) as home:
            with pytest.raises(IndexerError, match="run `CREATE EXTENSION vector` in the database as a user with that"):
                index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
            connection.execute("CREATE EXTENSION vector")
            index_source(home, "default", shop, processes=0, choose_index=lambda old: old.changed("hnsw", None, None))
            assert manifest(home).factory == HNSW
            assert len(Searcher(home).search_image("default", jpeg(3), k=5).results) == 5
        connection.execute(f"DROP OWNED BY {role}")
        connection.execute(f"DROP ROLE {role}")


def test_kinds_that_pgvector_has() -> None:
    assert chosen_kind(2_000, 64, IndexOptions()) == "flat"
    assert chosen_kind(100_000, 192, IndexOptions(memory=1)) == "hnsw"
    with pytest.raises(
        IndexerError, match="only FAISS has index kind 'ivf-pq'; choose --index-kind hnsw, flat or auto"
    ):
        chosen_kind(100_000, 192, IndexOptions("ivf-pq"))
    assert chosen_kind(100_000, 4096, IndexOptions()) == "flat" == chosen_kind(100_000, 4096, IndexOptions("flat"))
    with pytest.raises(IndexerError, match="at most 4,000 dimensions; the encoder has 4,096; choose --index-kind flat"):
        chosen_kind(100_000, 4096, IndexOptions("hnsw"))
    with pytest.raises(IndexerError, match="at most 16,000 .* 20,000; use an encoder with fewer"):
        chosen_kind(100_000, 20_000, IndexOptions("flat"))


def test_large_numbers_are_kept_and_asked_for(home: Home, postgres_url: str) -> None:
    """Numbers that 16 bits cannot hold: of vectors, which then get 32, and of a query to a graph of 16 bits."""
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    with connected(postgres_url) as connection:
        connection.execute("CREATE EXTENSION vector")
    for scale, factory in ((1.0, HNSW), (1e6, FLAT)):
        with home.catalogue.vector_tables.new(7, 1, "l2") as table:
            plan = Plan.of(60, 5, IndexOptions("hnsw"))
            made = build_index(vectors * scale, "l2", plan, home.path, table).index
            assert made.factory == factory
            np.testing.assert_allclose(made.vectors_at(np.array([7, 0, 7])), vectors[[7, 0, 7]] * scale, rtol=2e-3)
            for far in (1e5, 1e30):
                assert (made.search(np.full((2, 5), far, np.float32), 3).positions >= 0).all()


@pytest.mark.parametrize(
    ("kind", "dim"),
    [("hnsw", 4_000), ("flat", 2_002), ("flat", 2_003), pytest.param("flat", 16_000, marks=pytest.mark.slow)],
)
def test_the_longest_vectors(home: Home, postgres_url: str, kind: Kind, dim: int) -> None:
    """Those of a graph, those that just fit on a page and just do not, and those of a table."""
    vectors = np.random.default_rng(0).normal(size=(50, dim)).astype(np.float32)
    with connected(postgres_url) as connection:
        connection.execute("CREATE EXTENSION vector")
    with home.catalogue.vector_tables.new(7, 1, "l2") as table:
        made = build_index(vectors, "l2", Plan.of(50, dim, IndexOptions(kind)), home.path, table).index
        assert made.factory == (HNSW if kind == "hnsw" else FLAT)
        np.testing.assert_allclose(made.vectors_at(np.array([49])), vectors[49:], atol=3e-3)
        assert made.search(vectors[:5], 1).positions[:, 0].tolist() == list(range(5))


def test_a_graph_that_does_not_fit_into_shared_memory_is_built_by_one_process(home: Home, postgres_url: str) -> None:
    with connected(postgres_url) as connection:
        connection.execute("CREATE EXTENSION vector")
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    with home.catalogue.vector_tables.new(7, 1, "l2") as table:
        table.create(5, halves=True)
        table.append(0, [vectors], halves=True)
        table.connection.exec_driver_sql(f"ALTER TABLE {table.name} SET (parallel_workers = 2)")
        table.add_graph(16, 64, 10**12)  # bytes, which no machine shares among its processes
        assert table.connection.exec_driver_sql("SHOW max_parallel_maintenance_workers").scalar() == "0"
        assert table.shape() == (60, 5, True, True)
