"""An item that was written over HTTP stays as it was written, until its source is given precedence."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.ingest import ingest
from indexer.ingest.embed import embed_files
from indexer.ingest.ingest import index_source
from indexer.ingest.items import get_item, put_item
from indexer.search.searcher import Searcher
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg

ITEM = "item-1"
Described = tuple[str | None, dict[str, str], int, set[bool]]


@pytest.fixture
def manifest(any_home: Home, tmp_path: Path, encoder_dir: Path) -> Path:
    """A manifest of six photos of three items, indexed."""
    source = write_photos(tmp_path / "shop", 6)
    with (source / "shop.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["item_id", "image", "title", "colour"])
        for number, path in enumerate(sorted(source.rglob("*.jpg"))):
            rows.writerow([f"item-{number % 3}", path.relative_to(source), f"From the source, {number % 3}", "red"])
    index_source(any_home, "default", source / "shop.csv", encoder_ref=str(encoder_dir), processes=0)
    return source / "shop.csv"


def put(home: Home) -> None:
    put_item(home, Searcher(home), "default", ITEM, title="Corrected", attributes={}, images=[jpeg(70)])


def described(home: Home) -> Described:
    """Title, attributes, number of photos, and whether they are uploads."""
    item = get_item(home, "default", ITEM)
    return item.title, item.attributes, len(item.images), {image.uri.startswith("blob:") for image in item.images}


AS_WRITTEN: Described = ("Corrected", {}, 1, {True})
AS_LISTED: Described = ("From the source, 1", {"colour": "red"}, 2, {False})


def test_a_replaced_item_stays_as_written_until_it_is_restored(any_home: Home, manifest: Path) -> None:
    put(any_home)
    for generation in (2, 2):
        report = index_source(any_home, "default", manifest, processes=0)
        assert (report.replaced, report.unchanged, report.added, report.generation) == (1, 4, 0, generation)
        assert described(any_home) == AS_WRITTEN
        assert Searcher(any_home).search_image("default", jpeg(70), k=1).results[0].item_id == ITEM
    report = index_source(any_home, "default", manifest, restore_replaced=True, processes=0)
    assert (report.replaced, report.added, report.unchanged) == (0, 2, 4)
    assert described(any_home) == AS_LISTED
    page = Searcher(any_home).search_image("default", jpeg(70))
    assert page.total == 3 and page.results[0].score < 0.999
    assert index_source(any_home, "default", manifest, processes=0).unchanged == 6
    put(any_home)
    assert described(any_home) == AS_WRITTEN


def test_a_new_encoder_embeds_a_replaced_item_and_prune_keeps_it(
    any_home: Home, manifest: Path, other_encoder_dir: Path
) -> None:
    put(any_home)
    report = index_source(
        any_home, "default", manifest, encoder_ref=str(other_encoder_dir), prune=True, prune_limit=0.0, processes=0
    )
    assert (report.reembedded, report.pruned) == (5, 0)
    assert described(any_home) == AS_WRITTEN
    assert Searcher(any_home).search_image("default", jpeg(70), k=1).results[0].item_id == ITEM


def test_an_item_replaced_while_it_is_indexed_stays_as_written(
    any_home: Home, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in manifest.parent.rglob("*.jpg"):
        path.write_bytes(jpeg(80 + int(path.stem)))

    def replaced_after_reading(*arguments: Any, **options: Any) -> Iterator[Any]:
        for batch in embed_files(*arguments, **options):
            if described(any_home)[0] != "Corrected":
                put(any_home)
            yield batch

    monkeypatch.setattr(ingest, "embed_files", replaced_after_reading)
    index_source(any_home, "default", manifest, processes=0)
    assert described(any_home) == AS_WRITTEN


def test_an_upload_is_kept_if_the_source_has_no_usable_photo(any_home: Home, manifest: Path) -> None:
    put(any_home)
    for path in manifest.parent.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8\xff broken")
    report = index_source(any_home, "default", manifest, restore_replaced=True, processes=0)
    assert report.rejected == 6
    assert described(any_home) == AS_WRITTEN


def test_an_upload_of_a_photo_that_a_parquet_file_contains(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """The same bytes are the same blob: its image changes hands."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tmp_path / "shop.parquet"
    rows = [{"item_id": ITEM, "title": "Of the file", "image": {"bytes": jpeg(n), "path": None}} for n in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), source)
    index_source(any_home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    put_item(any_home, Searcher(any_home), "default", ITEM, title="Corrected", attributes={}, images=[jpeg(0)])
    assert index_source(any_home, "default", source, processes=0).replaced == 1
    assert described(any_home) == AS_WRITTEN
    index_source(any_home, "default", source, restore_replaced=True, processes=0)
    assert described(any_home) == ("Of the file", {}, 2, {True})
    assert index_source(any_home, "default", source, processes=0).replaced == 0
