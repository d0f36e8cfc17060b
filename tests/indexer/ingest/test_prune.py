"""`index --prune` removes what its source no longer lists, and nothing else."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import images
from indexer.errors import PruneError
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source, unlisted_images
from indexer.ingest.items import delete_item, list_items, put_item
from indexer.search.searcher import Searcher
from tests.conftest import write_photos
from tests.indexer.conftest import served, stored
from tests.indexer.search.pages import jpeg

PHOTOS = 12


@pytest.fixture
def shop(any_home: Home, tmp_path: Path, encoder_dir: Path) -> Path:
    """A folder of photos, indexed, beside items of another source and of HTTP."""
    source = write_photos(tmp_path / "a", PHOTOS)
    index_source(any_home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    index_source(any_home, "default", write_photos(tmp_path / "other", 2, start=50), processes=0)
    put_item(any_home, Searcher(any_home), "default", "uploaded", title=None, attributes={}, images=[jpeg(60)])
    return source


def names(home: Home) -> set[str]:
    return {item_id for item_id, _ in stored(home)}


def test_only_what_the_source_no_longer_lists_is_removed(any_home: Home, shop: Path) -> None:
    before = names(any_home)
    gone = {"bag/0000.jpg", "hat/0001.jpg"}
    searcher = Searcher(any_home)
    searcher.warm("default")
    for item_id in gone:
        (shop / item_id).unlink()
    assert index_source(any_home, "default", shop, processes=0).pruned == 0
    assert names(any_home) == before
    listed = unlisted_images(any_home, "default", shop)
    assert {image.item_id for image in listed} == gone and names(any_home) == before
    report = index_source(any_home, "default", shop, prune=True, processes=0)
    assert (report.pruned, report.gone) == (2, 0)
    assert names(any_home) == before - gone == set(served(any_home))
    assert searcher.search_image("default", jpeg(0)).total == len(before) - 2
    assert verify(any_home, "default", report.generation) == []
    assert unlisted_images(any_home, "default", shop) == []
    again = index_source(any_home, "default", shop, prune=True, processes=0)
    assert (again.pruned, again.generation) == (0, report.generation)


def test_files_of_another_source_are_not_looked_for_while_it_exists(any_home: Home, shop: Path) -> None:
    other = shop.parent / "other"
    next(other.rglob("*.jpg")).unlink()
    assert index_source(any_home, "default", shop, processes=0).gone == 0
    assert index_source(any_home, "default", other, processes=0).gone == 1
    shutil.rmtree(other)
    assert index_source(any_home, "default", shop, processes=0).gone == 2


def test_a_pruned_item_comes_back_with_its_file(any_home: Home, shop: Path) -> None:
    """Unlike one that a person deleted."""
    data = (shop / "bag/0000.jpg").read_bytes()
    (shop / "bag/0000.jpg").unlink()
    index_source(any_home, "default", shop, prune=True, processes=0)
    (shop / "bag/0000.jpg").write_bytes(data)
    report = index_source(any_home, "default", shop, prune=True, processes=0)
    assert (report.added, report.deleted) == (1, 0)


def test_a_source_that_lists_nothing_removes_nothing(any_home: Home, shop: Path) -> None:
    before = stored(any_home)
    shutil.rmtree(shop)
    shop.mkdir()
    for attempt in (
        lambda: index_source(any_home, "default", shop, prune=True, prune_limit=1.0, processes=0),
        lambda: unlisted_images(any_home, "default", shop, prune_limit=1.0),
    ):
        with pytest.raises(PruneError, match="lists no image, like a disk that is not mounted"):
            attempt()
    assert stored(any_home) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_removes_nothing_by_permissions(any_home: Home, shop: Path) -> None:
    (shop / "bag").chmod(0)
    try:
        with pytest.raises(PruneError, match=r"bag: the folder cannot be read \(Permission denied\)"):
            index_source(any_home, "default", shop, prune=True, prune_limit=1.0, processes=0)
    finally:
        (shop / "bag").chmod(0o700)


def test_an_entry_that_cannot_be_read_removes_nothing(any_home: Home, shop: Path) -> None:
    before = stored(any_home)
    shutil.rmtree(shop / "bag")
    (shop / "bag").symlink_to("bag")
    with pytest.raises(PruneError, match=r"bag: cannot be read .*so nothing was removed"):
        index_source(any_home, "default", shop, prune=True, prune_limit=1.0, processes=0)
    (shop / "bag").unlink()
    (shop / "bag").symlink_to(shop.parent / "other")
    with pytest.raises(PruneError, match=r"bag: the link points outside"):
        index_source(any_home, "default", shop, prune=True, prune_limit=1.0, processes=0)
    assert stored(any_home) == before


def test_more_than_the_limit_is_indexed_but_not_removed(any_home: Home, shop: Path) -> None:
    before = names(any_home)
    shutil.rmtree(shop / "bag")
    write_photos(shop, 1, start=40)
    refusal = r"4 of its 12 stored images are no longer listed, more than the limit of 20%.*--prune-limit 0\.34"
    with pytest.raises(PruneError, match=refusal):
        unlisted_images(any_home, "default", shop)
    with pytest.raises(PruneError, match=refusal.replace("12", "13").replace("34", "31")):
        index_source(any_home, "default", shop, prune=True, processes=0)
    assert names(any_home) == before | {"hat/0040.jpg"} == set(served(any_home)) | {"uploaded"}
    assert len(unlisted_images(any_home, "default", shop, prune_limit=0.34)) == 4
    assert index_source(any_home, "default", shop, prune=True, prune_limit=0.31, processes=0).pruned == 4


def test_a_renamed_sub_folder_is_no_reason_to_remove(any_home: Home, shop: Path) -> None:
    (shop / "bag").rename(shop / "z")
    assert unlisted_images(any_home, "default", shop) == []
    report = index_source(any_home, "default", shop, prune=True, processes=0)
    assert (report.moved, report.pruned) == (4, 0)


def write_manifest(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("item_id", "image"), *rows])
    return path


def test_one_photo_of_an_item_is_removed_and_the_item_stays(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """Two manifests in one folder: each owns the photos that it lists, of the same item too."""
    source = write_photos(tmp_path / "a", 4)
    photos = [str(path.relative_to(source)) for path in sorted(source.rglob("*.jpg"))]
    one = write_manifest(source / "one.csv", [("x", photos[0]), ("x", photos[1])])
    two = write_manifest(source / "two.csv", [("x", photos[2]), ("y", photos[3])])
    index_source(any_home, "default", one, encoder_ref=str(encoder_dir), processes=0)
    index_source(any_home, "default", two, processes=0)
    write_manifest(one, [("x", photos[0])])
    report = index_source(any_home, "default", one, prune=True, prune_limit=0.5, processes=0)
    assert report.pruned == 1
    assert {Path(uri).name for _, uri in stored(any_home)} == {Path(photos[n]).name for n in (0, 2, 3)}
    assert list_items(any_home, "default")[0].sources == [str(one), str(two)]
    write_manifest(two, [("y", photos[3])])
    index_source(any_home, "default", two, prune=True, prune_limit=0.5, processes=0)
    assert sorted(stored(any_home)) == [("x", str(source / photos[0])), ("y", str(source / photos[3]))]


def test_items_of_rows_that_cannot_be_read_are_kept(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    source = write_photos(tmp_path / "a", 4)
    photos = [str(path.relative_to(source)) for path in sorted(source.rglob("*.jpg"))]
    manifest = source / "shop.jsonl"
    lines = [json.dumps({"item_id": f"item-{n}", "image": photo}) for n, photo in enumerate(photos)]
    manifest.write_text("\n".join(lines))
    index_source(any_home, "default", manifest, encoder_ref=str(encoder_dir), processes=0)
    bad = json.dumps({"item_id": "item-0", "image": "https://shop.example/0.jpg"})
    manifest.write_text("\n".join([bad, *lines[1:3]]))
    report = index_source(any_home, "default", manifest, prune=True, prune_limit=0.5, processes=0)
    assert report.pruned == 1 and names(any_home) == {"item-0", "item-1", "item-2"}
    manifest.write_text("\n".join(["{ broken", *lines[1:2]]))
    with pytest.raises(PruneError, match=r"shop\.jsonl row 1: .*what it holds is unknown"):
        index_source(any_home, "default", manifest, prune=True, prune_limit=1.0, processes=0)
    assert names(any_home) == {"item-0", "item-1", "item-2"}


def test_a_parquet_file_with_images_owns_its_blobs(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = tmp_path / "shop.parquet"
    rows = [{"item_id": f"item-{n}", "image": {"bytes": jpeg(n), "path": None}} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), manifest)
    index_source(any_home, "default", manifest, encoder_ref=str(encoder_dir), processes=0)
    put_item(any_home, Searcher(any_home), "default", "live", title=None, attributes={}, images=[jpeg(4)])
    pq.write_table(pa.Table.from_pylist(rows[:4]), manifest)
    assert [image.item_id for image in unlisted_images(any_home, "default", manifest)] == ["item-4"]
    assert index_source(any_home, "default", manifest, prune=True, processes=0).pruned == 1
    assert names(any_home) == {"live", *(f"item-{n}" for n in range(4))}


def test_images_without_a_source_are_kept_unless_their_item_is_listed_and_they_are_gone(
    any_home: Home, shop: Path, tmp_path: Path
) -> None:
    """As earlier versions left them: items whose first photo is gone, and one that no source lists."""
    copied = shutil.copytree(shop, tmp_path / "b")
    (copied / "bag/0000.jpg").unlink()
    index_source(any_home, "default", copied, processes=0)
    with any_home.catalogue.write() as connection:
        connection.execute(sa.update(images).where(images.c.uri.startswith(f"{tmp_path}/")).values(source=None))
    shutil.rmtree(shop)
    report = index_source(any_home, "default", copied, prune=True, prune_limit=0.5, processes=0)
    assert (report.unchanged, report.pruned, report.gone) == (11, 11, 1)
    (left,) = list_items(any_home, "default", gone=True)
    assert (left.item_id, left.sources) == ("bag/0000.jpg", [])
    assert {tuple(item.sources) for item in list_items(any_home, "default")} == {(str(copied),), (), ("http:",)}


def test_what_a_person_deleted_stays_deleted(any_home: Home, shop: Path) -> None:
    delete_item(any_home, "default", "bag/0000.jpg")
    (shop / "bag/0000.jpg").rename(shop / "bag/aside")
    index_source(any_home, "default", shop, prune=True, processes=0)
    (shop / "bag/aside").rename(shop / "bag/0000.jpg")
    report = index_source(any_home, "default", shop, prune=True, processes=0)
    assert report.deleted == 1 and "bag/0000.jpg" not in names(any_home)
