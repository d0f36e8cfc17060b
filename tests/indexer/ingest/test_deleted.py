"""What a person deleted stays deleted when its source is indexed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.errors import NotFoundError
from indexer.ingest import ingest
from indexer.ingest.embed import embed_files
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, get_item, put_item
from indexer.search.searcher import Searcher
from tests.conftest import write_photos


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 6)


def ids(home: Home) -> set[str]:
    return {photo.item_id for photo in home.catalogue.images.photos(home.catalogue.collection_id("default"))}


def test_a_deleted_item_stays_deleted_until_it_is_restored(any_home: Home, shop: Path, encoder_dir: Path) -> None:
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    everything = ids(any_home)
    gone = sorted(everything)[:2]
    photo = (shop / gone[0]).read_bytes()
    for item_id in gone:
        delete_item(any_home, "default", item_id)
    for generation in (2, 2):
        report = index_source(any_home, "default", shop, processes=0)
        assert (report.added, report.unchanged, report.deleted, report.generation) == (0, 4, 2, generation)
        assert ids(any_home) == everything - set(gone)
        assert Searcher(any_home).search_image("default", photo).total == 4
    with pytest.raises(NotFoundError):
        get_item(any_home, "default", gone[0])
    restored = index_source(any_home, "default", shop, restore_deleted=True, processes=0)
    assert (restored.added, restored.deleted, ids(any_home)) == (2, 0, everything)
    assert Searcher(any_home).search_image("default", photo, k=1).results[0].item_id == gone[0]
    assert index_source(any_home, "default", shop, processes=0).unchanged == 6


def test_only_items_of_the_source_are_restored(home: Home, shop: Path, tmp_path: Path, encoder_dir: Path) -> None:
    other = write_photos(tmp_path / "other", 1, start=70)
    index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    index_source(home, "default", other, processes=0)
    (of_other,) = {str(path.relative_to(other)) for path in other.rglob("*.jpg")}
    for item_id in sorted(ids(home)):
        delete_item(home, "default", item_id)
    assert index_source(home, "default", shop, restore_deleted=True, processes=0).added == 6
    assert index_source(home, "default", other, processes=0).deleted == 1
    assert of_other not in ids(home)


def test_a_put_removes_the_tombstone(any_home: Home, shop: Path, encoder_dir: Path) -> None:
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    item_id = sorted(ids(any_home))[0]
    photo = (shop / item_id).read_bytes()
    for _ in range(2):
        delete_item(any_home, "default", item_id)
        put_item(any_home, Searcher(any_home), "default", item_id, title=None, attributes={}, images=[photo])
        assert index_source(any_home, "default", shop, processes=0).deleted == 0
        assert item_id in ids(any_home)


def test_an_item_deleted_while_it_is_indexed_stays_deleted(
    home: Home, shop: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    item_id = sorted(ids(home))[0]
    (shop / item_id).write_bytes((shop / sorted(ids(home))[1]).read_bytes())

    def deleted_after_reading(*arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in embed_files(*arguments, **options):
            if item_id in ids(home):
                delete_item(home, "default", item_id)
            yield batch

    monkeypatch.setattr(ingest, "embed_files", deleted_after_reading)
    index_source(home, "default", shop, processes=0)
    assert item_id not in ids(home)
