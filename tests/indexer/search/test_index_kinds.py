"""A collection with an approximate index, from the command line to the pages of a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from indexer.catalogue.home import Home
from indexer.generations.manifest import Manifest
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from indexer.search.searcher import Searcher
from indexer.vectors import IndexOptions, Kind, building
from indexer.vectors import faiss as engine
from indexer.vectors.kinds import VECTORS
from service.cli import app
from tests.conftest import write_photos
from tests.indexer.search.pages import change_live, check_every_page, write_coloured

APPROXIMATE: tuple[Kind, ...] = ("hnsw", "ivf", "ivf-pq")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few photos get an approximate index, and it is searched as if comparing them all took longer."""
    monkeypatch.setattr(building, "LEAST_APPROXIMATE", 40)
    monkeypatch.setattr(building, "HELD_OUT", 10)
    monkeypatch.setattr(engine.FaissIndex, "cost", lambda self, effort: 0.0 if effort < 100 else 10**9)


@pytest.fixture
def index(home: Home, tmp_path: Path) -> Callable[..., Result]:
    """`nitamono index` on 48 photos, in this process."""
    shop = write_photos(tmp_path / "shop", 48)
    return lambda *options: CliRunner().invoke(app, ["index", str(shop), "--home", str(home.path), *options])


def manifest(home: Home) -> Manifest:
    number = home.catalogue.search_state("default").generation
    assert number is not None and verify(home, "default", number) == []
    return Manifest.read(home.generation_directory("default", number))


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_pages_filters_and_live_changes(home: Home, tmp_path: Path, encoder_dir: Path, kind: Kind) -> None:
    """Then the changes are folded into another generation, and the collection keeps its kind of index."""
    source = write_coloured(tmp_path / "shop", 48)
    index_source(
        home, "default", source, encoder_ref=str(encoder_dir), choose_index=lambda old: old.changed(kind, 0.9, None)
    )
    first = manifest(home)
    assert engine.kind_of(first.factory) == kind
    assert first.options == {"kind": kind, "recall": 0.9, "memory": None}
    searcher = Searcher(home)
    change_live(home, searcher)
    check_every_page(home, searcher, atol=2e-3)
    index_source(home, "default", source)
    second = manifest(home)
    assert engine.kind_of(second.factory) == kind and second.number == first.number + 1
    check_every_page(home, searcher, atol=2e-3)
    page = searcher.search_item("default", "item-3", k=5, rerank="expand")
    assert [hit.item_id for hit in page.results][0] == "copy-3"
    page = searcher.search_item("default", "item-3", k=5, rerank="reciprocal")
    assert [hit.item_id for hit in page.results][0] == "copy-3"


def test_options_are_remembered_and_a_change_builds_another_index(
    home: Home, tmp_path: Path, encoder_dir: Path, index: Callable[..., Result]
) -> None:

    def run(*options: str) -> str:
        report = json.loads(index("--encoder", str(encoder_dir), "--json", *options).stdout)
        found = manifest(home)
        assert report["generation"] == found.number
        return f"{found.number} {found.factory[:5]}"

    assert run() == "1 Flat"
    assert run("--index-kind", "hnsw", "--memory", "2GB") == "2 HNSW3"
    assert run() == "2 HNSW3"
    assert run("--recall", "0.95") == "3 HNSW3"
    assert home.catalogue.collections.index_options(1) == IndexOptions("hnsw", 0.95, 2 * 10**9)
    assert run("--index-kind", "auto") == "4 Flat"
    assert run("--memory", "1B") == "5 IVF16"
    assert (home.generation_directory("default", 5) / VECTORS).is_file()


@pytest.mark.parametrize("size", ["2 apples", "GB", "-3MB", ""])
def test_a_size_that_is_none_is_refused_in_words(index: Callable[..., Result], size: str) -> None:
    error = index(f"--memory={size}").exception
    assert "--memory" in str(error) and "such as 500MB, 2GB or 1.5GiB" in str(error)
