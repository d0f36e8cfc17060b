"""Moved sources and renamed folders: photos keep their vectors, and hits show photos that exist."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import images, items
from indexer.generations.store import verify
from indexer.ingest import ingest
from indexer.ingest.embed import embed_files
from indexer.ingest.ingest import IndexReport, index_source
from indexer.ingest.items import delete_item, get_item, image_file, list_items, put_item
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos
from tests.indexer.conftest import stored
from tests.indexer.search.pages import jpeg

PHOTOS = 6


@pytest.fixture
def shop(any_home: Home, tmp_path: Path, encoder_dir: Path) -> Path:
    """A folder of six photos in three sub-folders, indexed."""
    source = write_photos(tmp_path / "a", PHOTOS)
    index_source(any_home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    return source


def ids(home: Home) -> dict[str, tuple[int, int]]:
    """item_id -> item key and image_id; every item has one image."""
    query = sa.select(items.c.item_id, items.c.id, images.c.id).select_from(images.join(items))
    with home.catalogue.read() as connection:
        rows = connection.execute(query).all()
    found = {item_id: (pk, image_id) for item_id, pk, image_id in rows}
    assert len(found) == len(rows)
    return found


def vectors(home: Home) -> dict[str, Any]:
    return {item_id: row[-1] for (item_id, _), row in stored(home).items()}


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.moved, report.unchanged, report.gone


def test_a_moved_folder_keeps_ids_and_vectors_and_embeds_nothing(
    any_home: Home, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, of_before = ids(any_home), vectors(any_home)
    embedded: list[Any] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        for batch in embed_files(*arguments, **options):
            embedded.extend(result for _, result in batch if result.vector is not None)
            yield batch

    monkeypatch.setattr(ingest, "embed_files", counted)
    moved = shop.rename(tmp_path / "b")
    report = index_source(any_home, "default", moved, processes=0)
    assert counts(report) == (0, PHOTOS, 0, 0)
    assert report.generation == 1 and embedded == []
    assert (ids(any_home), vectors(any_home)) == (before, of_before)
    for item_id in before:
        (image,) = get_item(any_home, "default", item_id).images
        assert Path(image.uri) == moved / item_id
    assert counts(index_source(any_home, "default", moved, processes=0)) == (0, 0, PHOTOS, 0)
    assert verify(any_home, "default", 1) == []


def test_a_renamed_sub_folder_leaves_no_stale_items(any_home: Home, shop: Path) -> None:
    before = ids(any_home)
    (shop / "bag").rename(shop / "bags")
    report = index_source(any_home, "default", shop, processes=0)
    assert counts(report) == (0, 2, 4, 0)
    assert ids(any_home) == {item_id.replace("bag/", "bags/"): keys for item_id, keys in before.items()}
    for path in (shop / "bags").iterdir():
        hit = Searcher(any_home).search_image("default", path.read_bytes(), k=1).results[0]
        assert (hit.item_id, hit.attributes) == (f"bags/{path.name}", {"category": "bags"})
        assert image_file(any_home, "default", hit.image_id) == path
    assert Searcher(any_home).search_image("default", jpeg(1)).total == PHOTOS
    assert counts(index_source(any_home, "default", shop, processes=0)) == (0, 0, PHOTOS, 0)


def test_a_link_that_leads_to_another_copy_is_the_same_source(
    any_home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    """As deliveries are often kept: dated folders, and a link to the newest; the older ones still exist."""
    first = write_photos(tmp_path / "2026-11-29", PHOTOS)
    second = shutil.copytree(first, tmp_path / "2026-11-30")
    (second / "bag/0000.jpg").unlink()
    current = tmp_path / "current"
    current.symlink_to(first)
    index_source(any_home, "default", current, encoder_ref=str(encoder_dir), processes=0)
    before = ids(any_home)
    current.unlink()
    current.symlink_to(second)
    report = index_source(any_home, "default", current, prune=True, processes=0)
    assert (report.added, report.moved, report.pruned) == (0, PHOTOS - 1, 1)
    assert ids(any_home) == {item_id: keys for item_id, keys in before.items() if item_id != "bag/0000.jpg"}
    assert {Path(uri).parents[1] for _, uri in stored(any_home)} == {second}


def test_doubles_that_moved_together_are_told_apart_by_name(any_home: Home, shop: Path) -> None:
    shutil.copy(shop / "bag/0000.jpg", shop / "bag/double.jpg")
    index_source(any_home, "default", shop, processes=0)
    before = ids(any_home)
    (shop / "bag").rename(shop / "z")
    assert counts(index_source(any_home, "default", shop, processes=0)) == (0, 3, 4, 0)
    assert ids(any_home) == {item_id.replace("bag/", "z/"): keys for item_id, keys in before.items()}


def test_one_stale_photo_becomes_one_of_two_copies_and_the_other_is_added(any_home: Home, shop: Path) -> None:
    for name in ("x", "y"):
        shutil.copytree(shop / "bag", shop / name)
    shutil.rmtree(shop / "bag")
    report = index_source(any_home, "default", shop, processes=0)
    assert counts(report) == (2, 2, 4, 0)
    assert {item_id.partition("/")[0] for item_id in ids(any_home)} == {"hat", "mug", "x", "y"}
    assert len(vectors(any_home)) == 8 and None not in vectors(any_home).values()
    (first, second) = (vectors(any_home)[f"{name}/0000.jpg"] for name in "xy")
    assert first == second


def test_a_moved_photo_that_also_changed_is_another(any_home: Home, shop: Path) -> None:
    (shop / "bag/0000.jpg").unlink()
    (shop / "new").mkdir()
    draw_photo(77).save(shop / "new/0000.jpg")
    report = index_source(any_home, "default", shop, processes=0)
    assert counts(report) == (1, 0, 5, 1)
    assert report.gone_examples == [str(shop / "bag/0000.jpg")]


def test_a_copied_folder_under_another_name_takes_nothing(any_home: Home, shop: Path, tmp_path: Path) -> None:
    """Another source with the same photos: those of the first exist, so none has moved."""
    copied = shutil.copytree(shop, tmp_path / "b")
    report = index_source(any_home, "default", copied, processes=0)
    assert counts(report) == (PHOTOS, 0, 0, 0)
    assert {item.photos for item in list_items(any_home, "default")} == {2}


def test_items_of_another_source_are_not_renamed_when_their_disk_is_away(
    any_home: Home, shop: Path, tmp_path: Path
) -> None:
    before = ids(any_home)
    other = tmp_path / "other"
    shutil.copytree(shop / "bag", other / "sale")
    shop.rename(tmp_path / "away")
    report = index_source(any_home, "default", other, processes=0)
    assert (report.added, report.moved, report.gone) == (2, 0, PHOTOS)
    assert ids(any_home).items() >= before.items()


def test_a_moved_manifest_with_two_photos_for_an_item(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    source = write_photos(tmp_path / "a", 4)
    with (source / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "image", "title"])
        for number, path in enumerate(sorted(source.rglob("*.jpg"))):
            rows.writerow([f"item-{number // 2}", path.relative_to(source), f"No. {number // 2}"])
    index_source(any_home, "default", source / "shop.csv", encoder_ref=str(encoder_dir), processes=0)
    before = {key: row for (key, _), row in stored(any_home).items()}
    moved = source.rename(tmp_path / "b")
    report = index_source(any_home, "default", moved / "shop.csv", processes=0)
    assert counts(report) == (0, 4, 0, 0)
    assert {key: row for (key, _), row in stored(any_home).items()} == before
    assert all(Path(uri).parts[: len(moved.parts)] == moved.parts for _, uri in stored(any_home))


def test_an_item_deleted_or_uploaded_while_its_photo_is_recognised(
    any_home: Home, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shop.rename(tmp_path / "b")
    deleted, uploaded = sorted(ids(any_home))[:2]

    def disturbed(*arguments: Any, **options: Any) -> Any:
        for batch in embed_files(*arguments, **options):
            if deleted in ids(any_home):
                delete_item(any_home, "default", deleted)
                put_item(
                    any_home, Searcher(any_home), "default", uploaded, title="new", attributes={}, images=[jpeg(9)]
                )
            yield batch

    monkeypatch.setattr(ingest, "embed_files", disturbed)
    index_source(any_home, "default", moved, processes=0)
    assert deleted not in ids(any_home)
    record = get_item(any_home, "default", uploaded)
    assert (record.title, [image.uri[:5] for image in record.images]) == ("new", ["blob:"])
    hit = Searcher(any_home).search_image("default", jpeg(9), k=1).results[0]
    assert (hit.item_id, hit.title) == (uploaded, "new")


def test_a_hit_and_an_item_show_a_photo_that_exists(any_home: Home, shop: Path, tmp_path: Path) -> None:
    """As homes of earlier versions have them: each item with a photo that is gone and one that exists."""
    copied = shutil.copytree(shop, tmp_path / "b")
    index_source(any_home, "default", copied, processes=0)
    shutil.rmtree(shop)
    for number in range(PHOTOS):
        hit = Searcher(any_home).search_image("default", jpeg(number), k=1).results[0]
        first, second = get_item(any_home, "default", hit.item_id).images
        assert Path(first.uri) == copied / hit.item_id and Path(second.uri) == shop / hit.item_id
        assert hit.image_id == first.image_id
        for image in (first, second):
            assert image_file(any_home, "default", image.image_id) == copied / hit.item_id
    report = index_source(any_home, "default", copied, processes=0)
    assert report.gone == PHOTOS
    assert list_items(any_home, "default", gone=True) == []


def test_photos_of_which_none_exists_are_reported_and_listed(any_home: Home, shop: Path) -> None:
    shutil.rmtree(shop / "hat")
    report = index_source(any_home, "default", shop, processes=0)
    assert (report.gone, report.gone_examples) == (2, [str(shop / "hat/0001.jpg"), str(shop / "hat/0004.jpg")])
    listed = list_items(any_home, "default", gone=True)
    assert [(item.item_id, item.photos, item.gone, item.sources) for item in listed] == [
        ("hat/0001.jpg", 1, 1, [str(shop)]),
        ("hat/0004.jpg", 1, 1, [str(shop)]),
    ]
    assert len(list_items(any_home, "default")) == PHOTOS
