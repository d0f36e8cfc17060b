"""Searches with a second stage: the same items in another order, whatever is live, deleted, filtered or missing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.records import Rerank
from indexer.catalogue.schema import generations
from indexer.errors import InvalidRequestError
from indexer.generations.build import build_generation
from indexer.generations.manifest import NEIGHBOURS
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, put_item
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from indexer.vectors.rerank import DEPTH
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg, names

BOTH: tuple[Rerank, ...] = ("expand", "reciprocal")


@pytest.fixture
def shop(home: Home, tmp_path: Path, encoder_dir: Path) -> Home:
    """30 photos as 15 items of two photos, of two colours."""
    source = write_photos(tmp_path / "shop", 30)
    rows = ["item_id,image,colour"]
    for number, path in enumerate(sorted(source.rglob("*.jpg"))):
        rows.append(f"item-{number // 2},{path.relative_to(source)},{'red' if number // 2 % 2 else 'blue'}")
    (source / "c.csv").write_text("\n".join(rows))
    index_source(home, "default", source / "c.csv", encoder_ref=str(encoder_dir))
    return home


def scores(page: SearchPage) -> dict[str, tuple[float, float | None]]:
    return {hit.item_id: (round(hit.score, 4), hit.probability) for hit in page.results}


@pytest.mark.parametrize("rerank", BOTH)
def test_every_item_comes_once_with_the_score_of_a_plain_search(shop: Home, rerank: Rerank) -> None:
    searcher = Searcher(shop)
    for filters in (None, {"colour": "red"}):
        plain = searcher.search_image("default", jpeg(3), k=50, filters=filters)
        found = searcher.search_image("default", jpeg(3), k=50, filters=filters, rerank=rerank)
        assert found.total == plain.total == len(found.results) == (15 if filters is None else 7)
        if rerank == "reciprocal":
            assert scores(found) == scores(plain)
        else:  # an item may be shown by another photo of it, whose score is its own
            assert set(scores(found)) == set(scores(plain))
            assert all(scores(found)[name][0] <= scores(plain)[name][0] for name in names(found))


@pytest.mark.parametrize("rerank", BOTH)
def test_pages_of_a_second_stage_join_to_the_whole_ranking(shop: Home, rerank: Rerank) -> None:
    searcher = Searcher(shop)
    whole = searcher.search_image("default", jpeg(3), k=50, rerank=rerank)
    parts = [searcher.search_image("default", jpeg(3), k=4, offset=at, rerank=rerank) for at in range(0, 16, 4)]
    assert [name for part in parts for name in names(part)] == names(whole)


def test_a_second_stage_changes_the_order(shop: Home) -> None:
    searcher = Searcher(shop)
    for rerank in BOTH:
        queries = range(12)
        changed = [
            names(searcher.search_image("default", jpeg(n), k=15, rerank=rerank))
            != names(searcher.search_image("default", jpeg(n), k=15))
            for n in queries
        ]
        assert any(changed), rerank


@pytest.mark.parametrize("rerank", BOTH)
def test_live_items_are_found_and_deleted_ones_are_not(shop: Home, rerank: Rerank) -> None:
    searcher = Searcher(shop)
    put_item(shop, searcher, "default", "new", title=None, attributes={"colour": "red"}, images=[jpeg(90), jpeg(91)])
    put_item(shop, searcher, "default", "item-3", title=None, attributes={"colour": "red"}, images=[jpeg(92)])
    delete_item(shop, "default", "item-0")
    everything = {f"item-{n}" for n in range(1, 15)} | {"new"}
    for query, expected in ((90, "new"), (91, "new"), (92, "item-3")):
        page = searcher.search_image("default", jpeg(query), k=50, rerank=rerank)
        assert page.total == 15 and len(page.results) == 15 and set(names(page)) == everything
        assert names(page)[0] == expected
    similar = searcher.search_item("default", "new", k=50, rerank=rerank)
    assert set(names(similar)) == everything - {"new"} and len(similar.results) == 14
    red = searcher.search_image("default", jpeg(90), k=50, filters={"colour": "red"}, rerank=rerank)
    assert len(red.results) == red.total and names(red)[0] == "new"


@pytest.mark.parametrize("rerank", BOTH)
def test_one_item_and_none_are_searched_too(home: Home, tmp_path: Path, encoder_dir: Path, rerank: Rerank) -> None:
    index_source(home, "default", write_photos(tmp_path / "two", 2), encoder_ref=str(encoder_dir))
    searcher = Searcher(home)
    assert len(searcher.search_image("default", jpeg(0), rerank=rerank).results) == 2
    first, second = names(searcher.search_image("default", jpeg(0)))
    delete_item(home, "default", first)
    assert names(searcher.search_image("default", jpeg(0), rerank=rerank)) == [second]
    delete_item(home, "default", second)
    assert searcher.search_image("default", jpeg(0), rerank=rerank).results == []


def without_lists(home: Home) -> None:
    """Make the active generation one of before there were neighbour lists."""
    directory = home.generation_directory("default", 1)
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"][NEIGHBOURS]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    (directory / NEIGHBOURS).unlink()
    digest = hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
    with home.catalogue.write() as connection:
        connection.execute(sa.update(generations).values(manifest_sha256=digest))


def test_a_generation_without_lists_is_served_and_says_what_it_cannot(shop: Home) -> None:
    expected = Searcher(shop).search_image("default", jpeg(3), k=15, rerank="expand")
    without_lists(shop)
    assert verify(shop, "default", 1) == []
    searcher = Searcher(shop)
    assert searcher.search_image("default", jpeg(3), k=15, rerank="expand") == expected
    with pytest.raises(InvalidRequestError, match="generation 1 of 'default' has no neighbour lists"):
        searcher.search_image("default", jpeg(3), rerank="reciprocal")


def test_a_large_generation_gets_no_lists(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.generations.build.MAX_LISTED", 10)
    state = shop.catalogue.search_state("default")
    encoder = next(e for e in shop.catalogue.encoders.all() if e.encoder_id == state.encoder_id)
    record = build_generation(shop, "default", encoder)
    assert not (shop.generation_directory("default", record.number) / NEIGHBOURS).exists()
    assert verify(shop, "default", record.number) == []
    assert len(Searcher(shop).search_image("default", jpeg(3), k=15).results) == 15


def test_what_lies_deeper_than_the_re_ranked_keeps_its_order(shop: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.search.second_stage.DEPTH", 5)
    searcher = Searcher(shop)
    plain = names(searcher.search_image("default", jpeg(3), k=15))
    found = names(searcher.search_image("default", jpeg(3), k=15, rerank="reciprocal"))
    assert set(found[:5]) == set(plain[:5]) and found[5:] == plain[5:]
    assert DEPTH == 100


@pytest.mark.parametrize("rerank", BOTH)
def test_probabilities_are_those_of_a_plain_search(
    home: Home, tmp_path: Path, encoder_dir: Path, rerank: Rerank
) -> None:
    index_source(home, "default", write_photos(tmp_path / "many", 60), encoder_ref=str(encoder_dir))
    searcher = Searcher(home)
    plain = searcher.search_image("default", jpeg(4), k=60)
    assert plain.results[0].probability is not None
    found = searcher.search_image("default", jpeg(4), k=60, rerank=rerank)
    order = np.argsort([hit.item_id for hit in found.results])
    likely = [found.results[place].probability for place in order]
    expected = [hit.probability for hit in sorted(plain.results, key=lambda hit: hit.item_id)]
    np.testing.assert_allclose(np.array(likely, float), np.array(expected, float), atol=1e-4)
