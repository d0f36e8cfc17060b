"""Writes, deletions, new generations, roll backs, repeated indexing and restarts in any order.

After each step, a search finds exactly the items that exist, with every kind of index.
"""

from __future__ import annotations

import shutil
import tempfile
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
from indexer.vectors import faiss as engine
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg, names

LISTED = 24  # items of the source
OTHERS = [f"late-{number}" for number in range(4)]  # items that are written over HTTP


class Interleavings(RuleBasedStateMachine):
    encoder: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.home = Home.open(self.folder / "home", create=True)
        self.searcher = Searcher(self.home)
        self.exist: set[str] = set()
        self.deleted: set[str] = set()

    @initialize(kind=st.sampled_from(KINDS))
    def index(self, kind: Kind) -> None:
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
        self.home.close()
        shutil.rmtree(self.folder)


def test_a_deleted_item_never_returns(encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "LEAST_APPROXIMATE", 18)  # FAISS fits 16 codes
    monkeypatch.setattr(building, "HELD_OUT", 2)
    monkeypatch.setattr(engine.FaissIndex, "cost", lambda self, effort: 0.0 if effort < 100 else 10**9)
    Interleavings.encoder = encoder_dir
    few = settings(max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Interleavings, settings=few)
