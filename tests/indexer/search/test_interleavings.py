"""Writes, deletions, new generations, roll backs, repeated indexing and restarts in any order.

After each step, a search finds exactly the items that exist, with every kind of index.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from indexer.catalogue.home import Home
from indexer.errors import NotFoundError
from indexer.ingest.folding import fold
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, put_item
from indexer.ingest.promotion import rollback
from indexer.search.searcher import Searcher
from indexer.vectors import KINDS, Kind, building
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.pgvector import PgvectorIndex
from tests import postgres
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg, names

LISTED = 24  # items of the source
OTHERS = [f"late-{number}" for number in range(4)]  # items that are written over HTTP


class Interleavings(RuleBasedStateMachine):
    encoder: Path
    kinds: tuple[Kind, ...] = KINDS

    def __init__(self) -> None:
        super().__init__()
        self.opened = ExitStack()
        self.folder = Path(self.opened.enter_context(tempfile.TemporaryDirectory()))
        self.home = self.opened.enter_context(self.open())
        self.searcher = Searcher(self.home)
        self.exist: set[str] = set()
        self.deleted: set[str] = set()

    def open(self) -> Home:
        return Home.open(self.folder / "home", create=True)

    @initialize(data=st.data())
    def index(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self.kinds))
        self.shop = write_photos(self.folder / "shop", LISTED, categories=("all",))
        index_source(
            self.home, "default", self.shop, encoder_ref=str(self.encoder), processes=0,
            choose_index=lambda old: old.changed(kind, None, None),
        )  # fmt: skip
        self.exist = {f"all/{number:04d}.jpg" for number in range(LISTED)}

    @rule(item=st.sampled_from(OTHERS), photo=st.integers(100, 103))
    def write(self, item: str, photo: int) -> None:
        put_item(self.home, self.searcher, "default", item, title=None, attributes={}, images=[jpeg(photo)])
        self.exist.add(item)
        self.deleted.discard(item)

    @precondition(lambda self: self.exist)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.exist)))
        delete_item(self.home, "default", item)
        self.exist.remove(item)
        self.deleted.add(item)

    @rule()
    def fold(self) -> None:
        fold(self.home, "default")

    @rule()
    def index_again(self) -> None:
        """The source still lists what was deleted."""
        index_source(self.home, "default", self.shop, processes=0)

    @rule()
    def roll_back(self) -> None:
        try:
            rollback(self.home, "default")
        except NotFoundError:
            return

    @rule()
    def restart(self) -> None:
        self.searcher.close()
        self.searcher = Searcher(self.home)

    @invariant()
    def what_exists_is_found(self) -> None:
        if not self.exist:
            return
        page = self.searcher.search_image("default", jpeg(101), k=LISTED + len(OTHERS))
        assert sorted(names(page)) == sorted(self.exist) and page.total == len(self.exist)
        first = self.searcher.search_image("default", jpeg(101), k=3)
        assert [hit.score for hit in first.results] == [hit.score for hit in page.results][: len(first.results)]

    def teardown(self) -> None:
        self.searcher.close()
        self.opened.close()


class InterleavingsOnPgvector(Interleavings):
    server: str
    kinds = ("flat", "hnsw")

    def open(self) -> Home:
        url = self.opened.enter_context(postgres.database(self.server))
        return Home.open(self.folder / "home", create=True, database_url=url, vectors="pgvector")


def run_all(machine: type[Interleavings], encoder: Path, monkeypatch: pytest.MonkeyPatch, examples: int) -> None:
    monkeypatch.setattr(building, "LEAST_APPROXIMATE", 18)  # FAISS fits 16 codes
    monkeypatch.setattr(building, "HELD_OUT", 2)
    for index in (FaissIndex, PgvectorIndex):
        monkeypatch.setattr(index, "cost", lambda self, effort: 0.0 if effort < 100 else 10**9)
    machine.encoder = encoder
    few = settings(
        max_examples=examples, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(machine, settings=few)


def test_a_deleted_item_never_returns(encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_all(Interleavings, encoder_dir, monkeypatch, 8)


@pytest.mark.slow
def test_a_deleted_item_never_returns_from_a_table(
    encoder_dir: Path, postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    InterleavingsOnPgvector.server = postgres_server
    run_all(InterleavingsOnPgvector, encoder_dir, monkeypatch, 6)
