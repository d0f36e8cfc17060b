"""`clean`: what nothing refers to is removed, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from indexer.backup.backup import unpublished
from indexer.catalogue.home import Home
from indexer.errors import BusyError, MismatchError
from indexer.generations.store import verify
from indexer.ingest.clean import AGE, clean
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, put_item
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos

OLD = time.time() - 2 * AGE


@pytest.fixture
def shop(any_home: Home, tmp_path: Path, encoder_dir: Path) -> Home:
    """A shop with three uploaded items, the first of which is deleted, and leftovers of every kind."""
    source = write_photos(tmp_path / "source", 4)
    index_source(any_home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    for number in range(3):
        put(any_home, tmp_path, number)
    delete_item(any_home, "default", "live-0")
    return any_home


def photo(tmp_path: Path, number: int) -> bytes:
    draw_photo(90 + number).save(tmp_path / "photo.png")
    return (tmp_path / "photo.png").read_bytes()


def put(home: Home, tmp_path: Path, number: int) -> None:
    data = photo(tmp_path, number)
    put_item(home, Searcher(home), "default", f"live-{number}", title=None, attributes={}, images=[data])


def age(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (OLD, OLD))


def leave(path: Path, *, folder: bool = False) -> Path:
    (path / "part" if folder else path).parent.mkdir(parents=True, exist_ok=True)
    (path / "part" if folder else path).write_bytes(b"12345")
    return path


def leftovers(home: Home) -> dict[Path, str]:
    hexes = "0123456789abcdef" * 2
    return {
        leave(home.path / "blobs/ab" / f".abc-{hexes}"): "temporary",
        leave(home.path / "encoders" / f".abc-{hexes}", folder=True): "temporary",
        leave(home.generations_directory("default") / f".building-{hexes}", folder=True): "temporary",
        leave(home.generation_directory("default", 77), folder=True): "generation",
    }


def test_leftovers_are_listed_then_removed_and_all_else_is_kept(shop: Home, tmp_path: Path) -> None:
    expected = leftovers(shop)
    kept = leave(shop.path / ".keep")
    only_copy = leave(shop.path / "encoders" / (".lost-old-" + "0" * 32), folder=True)
    age(shop.path)
    before = {path for path in shop.path.rglob("*") if path.is_file()}
    listed = clean(shop, dry_run=True)
    assert {path for path in shop.path.rglob("*") if path.is_file()} >= before
    photos = [left for left in listed.removed if left.kind == "photo"]
    assert [left.bytes for left in photos] == [len(photo(tmp_path, 0))]
    assert {left.path: left.kind for left in listed.removed if left.kind != "photo"} == expected
    assert listed.bytes == len(photo(tmp_path, 0)) + 5 * len(expected)
    assert clean(shop).removed == listed.removed
    assert not any(left.path.exists() for left in listed.removed)
    assert kept.exists() and only_copy.exists()
    assert clean(shop).removed == []
    assert verify(shop, "default", 1) == []
    for number in (1, 2):
        page = Searcher(shop).search_image("default", photo(tmp_path, number), k=1)
        assert page.results[0].item_id == f"live-{number}"
        (image,) = shop.catalogue.items.get("default", f"live-{number}").images
        assert shop.uri_path(image.uri).read_bytes() == photo(tmp_path, number)


def test_what_is_younger_than_an_hour_is_kept(shop: Home) -> None:
    expected = leftovers(shop)
    assert {left.kind for left in clean(shop).removed} == {"generation"}
    assert [path for path in expected if path.exists()] == [p for p, kind in expected.items() if kind == "temporary"]


def test_a_photo_that_is_uploaded_again_after_cleaning_is_stored_again(shop: Home, tmp_path: Path) -> None:
    age(shop.path)
    assert len(clean(shop).removed) == 1
    put(shop, tmp_path, 0)
    age(shop.path)
    assert clean(shop).removed == []


def test_a_collection_that_is_being_indexed_is_left_alone(shop: Home) -> None:
    age(shop.path)
    with shop.lock("collection-default"), pytest.raises(BusyError):
        clean(shop)


def test_a_home_with_another_catalogue_is_refused(shop: Home) -> None:
    with Home.open(shop.path, database_url=f"sqlite:///{shop.path.parent / 'other.sqlite'}") as other:
        with pytest.raises(MismatchError, match="NITAMONO_DATABASE_URL"):
            clean(other)


def test_a_restore_that_is_still_running_is_left_alone(home: Home) -> None:
    home.catalogue.ensure_collection("default")
    with unpublished(home.path) as aside:
        leave(aside / "catalogue.sqlite")
        age(aside)
        assert clean(home).removed == [] and aside.exists()
    leave(aside / "catalogue.sqlite")
    age(aside)
    assert [leftover.path for leftover in clean(home).removed] == [aside]
    assert not aside.exists()
