"""`index_source` on real databases, real files and a real index."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.catalogue.home import Home
from indexer.errors import BusyError, InvalidRequestError
from indexer.generations.store import verify
from indexer.ingest.ingest import IndexReport, index_source
from indexer.ingest.items import image_file
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos
from tests.indexer.conftest import served, stored
from training.data.decode import decode_image
from training.encoder import load_encoder
from training.errors import EncoderError, SourceError
from training.preprocessing import Preprocessing
from training.reference import describe_encoder


def counts(report: IndexReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.rejected


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 9)


def test_a_folder_is_indexed_once_and_then_left_alone(any_home: Home, shop: Path, encoder_dir: Path) -> None:
    first = index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    assert counts(first) == (9, 0, 0, 0)
    assert first.generation == 1
    before = stored(any_home)
    second = index_source(any_home, "default", shop)
    assert counts(second) == (0, 0, 9, 0)
    assert second.generation == 1
    assert stored(any_home) == before
    assert verify(any_home, "default", 1) == []


def test_stored_and_served_vectors_are_the_encoders_own(home: Home, shop: Path, encoder_dir: Path) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder_dir))
    encoder = load_encoder(encoder_dir)
    vectors = served(home)
    assert set(vectors) == {str(path.relative_to(shop)) for path in shop.rglob("*.jpg")}
    for item_id, vector in vectors.items():
        pixels = encoder.preprocessing.apply(
            decode_image((shop / item_id).read_bytes(), at_least=encoder.preprocessing.size).pixels
        )
        expected = encoder.encode(encoder.prepare(pixels.transpose(1, 2, 0))[None]).numpy()[0]
        np.testing.assert_allclose(np.frombuffer(vector, np.float32), expected, atol=1e-5)


def test_a_pool_of_processes_stores_what_one_process_does(tmp_path: Path, photos: Path, encoder_dir: Path) -> None:
    many = write_photos(tmp_path / "many", 60)
    kept = []
    for processes in (0, 2):
        with Home.open(tmp_path / f"home-{processes}", create=True) as home:
            report = index_source(home, "default", many, encoder_ref=str(encoder_dir), processes=processes)
            assert counts(report) == (60, 0, 0, 0)
            kept.append(stored(home))
    assert kept[0] == kept[1]


def test_a_changed_file_is_embedded_anew_and_a_touched_one_is_not(
    any_home: Home, shop: Path, encoder_dir: Path
) -> None:
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    changed, touched = sorted(shop.rglob("*.jpg"))[:2]
    before = stored(any_home)
    draw_photo(500).save(changed, quality=90)
    os.utime(touched, ns=(1, 1))
    report = index_source(any_home, "default", shop)
    assert counts(report) == (0, 1, 8, 0)
    assert report.generation == 2
    after = stored(any_home)
    different = {uri for (_, uri) in after if after[_, uri] != before[_, uri]}
    assert different == {str(changed)}
    assert counts(index_source(any_home, "default", shop)) == (0, 0, 9, 0)


def test_one_content_under_two_ids_keeps_both(home: Home, shop: Path, encoder_dir: Path) -> None:
    original = sorted(shop.rglob("*.jpg"))[0]
    shutil.copy(original, shop / "copy.jpg")
    assert counts(index_source(home, "default", shop, encoder_ref=str(encoder_dir))) == (10, 0, 0, 0)
    page = Searcher(home).search_image("default", original.read_bytes(), k=2)
    assert {hit.item_id for hit in page.results} == {str(original.relative_to(shop)), "copy.jpg"}
    assert page.results[0].score == pytest.approx(page.results[1].score)


def test_bad_files_are_set_aside_with_the_reason_and_do_not_stop_the_rest(
    any_home: Home, shop: Path, encoder_dir: Path
) -> None:
    good = sorted(shop.rglob("*.jpg"))[0].read_bytes()
    (shop / "empty.jpg").write_bytes(b"")
    (shop / "text.jpg").write_text("no picture")
    (shop / "half.jpg").write_bytes(good[: len(good) // 2])
    os.mkfifo(shop / "pipe.jpg")
    report = index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    assert counts(report) == (9, 0, 0, 4)
    reasons = {record.item_id: record.reason for record in any_home.catalogue.rejects.all("default")}
    assert "0 bytes" in reasons["empty.jpg"]
    assert "text, not an image" in reasons["text.jpg"]
    assert "truncated" in reasons["half.jpg"]
    assert "regular file" in reasons["pipe.jpg"]
    assert len(served(any_home)) == 9
    (shop / "half.jpg").write_bytes(good)
    assert counts(index_source(any_home, "default", shop)) == (0, 1, 9, 3)
    assert len(served(any_home)) == 10


def test_a_photo_that_breaks_leaves_search_and_returns_when_mended(home: Home, shop: Path, encoder_dir: Path) -> None:
    index_source(home, "default", shop, encoder_ref=str(encoder_dir))
    path = sorted(shop.rglob("*.jpg"))[0]
    good = path.read_bytes()
    path.write_bytes(b"broken")
    assert counts(index_source(home, "default", shop)) == (0, 0, 8, 1)
    assert str(path.relative_to(shop)) not in served(home)
    path.write_bytes(good)
    assert counts(index_source(home, "default", shop)) == (0, 1, 8, 0)
    assert len(served(home)) == 9


def test_a_manifest_gives_titles_attributes_and_several_photos_per_item(
    any_home: Home, shop: Path, encoder_dir: Path
) -> None:
    first, second, third = (path.relative_to(shop) for path in sorted(shop.rglob("*.jpg"))[:3])
    manifest = shop / "catalogue.csv"
    rows = [
        f"a,{first},Red bag,bags",
        f"a,{second},Red bag,bags",
        f"b,{third},Hat,hats",
        "b,missing.jpg,Hat,hats",
        ",x,,",
    ]
    manifest.write_text("item_id,image,title,category\n" + "\n".join(rows) + "\n")
    report = index_source(any_home, "default", manifest, encoder_ref=str(encoder_dir))
    assert counts(report) == (3, 0, 0, 2)
    item = any_home.catalogue.items.get("default", "a")
    assert (item.title, item.attributes, len(item.images)) == ("Red bag", {"category": "bags"}, 2)
    reasons = [(record.item_id, record.reason) for record in any_home.catalogue.rejects.all("default")]
    assert reasons == [("b", "the file does not exist"), (None, "item_id is empty; every row needs one")]
    manifest.write_text("item_id,image,title,category\n" + "\n".join([*rows[:2], rows[2].replace("Hat", "Cap")]) + "\n")
    report = index_source(any_home, "default", manifest)
    assert counts(report) == (0, 1, 2, 0)
    assert any_home.catalogue.items.get("default", "b").title == "Cap"
    assert report.generation == 1, "words alone need no new index"
    # A second reading forgets the bad rows of the first; the missing image stays listed.
    assert [r.item_id for r in any_home.catalogue.rejects.all("default")] == ["b"]


def test_parquet_and_jsonl_give_what_csv_gives(tmp_path: Path, shop: Path, encoder_dir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = [
        {"item_id": f"i{n}", "image": str(path.relative_to(shop)), "title": f"Thing {n}", "price": 10 + n}
        for n, path in enumerate(sorted(shop.rglob("*.jpg")))
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), shop / "c.parquet")
    (shop / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (shop / "c.csv").write_text("item_id,image,title,price\n" + "\n".join(",".join(map(str, r.values())) for r in rows))
    kept = []
    for kind in ("csv", "jsonl", "parquet"):
        with Home.open(tmp_path / kind, create=True) as home:
            assert index_source(home, "default", shop / f"c.{kind}", encoder_ref=str(encoder_dir)).added == 9
            kept.append(stored(home))
    assert kept[0] == kept[1] == kept[2]
    assert next(iter(kept[0].values()))[5] == {"price": "10"}


def test_another_encoder_embeds_everything_anew_uploads_and_other_sources_too(
    any_home: Home, shop: Path, encoder_dir: Path, other_encoder_dir: Path, tmp_path: Path
) -> None:
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    more = write_photos(tmp_path / "more", 3, start=40)
    report = index_source(any_home, "default", more, encoder_ref=str(other_encoder_dir))
    assert (counts(report), report.reembedded) == ((3, 0, 0, 0), 9)
    assert len(served(any_home)) == 12
    assert any_home.catalogue.search_state("default").encoder_id == describe_encoder(other_encoder_dir).encoder_id
    back = index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    assert (counts(back), back.reembedded) == ((0, 0, 9, 0), 3)


def test_an_unknown_encoder_or_source_stores_nothing(home: Home, shop: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such encoder directory or name"):
        index_source(home, "default", shop, encoder_ref="nonsense")
    with pytest.raises(SourceError, match="no such folder or manifest"):
        index_source(home, "default", tmp_path / "nowhere")
    assert home.catalogue.collections.all() == []


@pytest.mark.parametrize("name", ["", "Shop", "a/b", "../x", "a" * 65, "-a"])
def test_bad_collection_names_are_refused(home: Home, shop: Path, encoder_dir: Path, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="lower-case"):
        index_source(home, name, shop, encoder_ref=str(encoder_dir))


def test_two_indexers_on_one_collection_do_not_mix(home: Home, shop: Path, encoder_dir: Path) -> None:
    with home.lock("collection-default"), Home.open(home.path) as other:
        with pytest.raises(BusyError, match=f"process {os.getpid()}"):
            index_source(other, "default", shop, encoder_ref=str(encoder_dir))
    assert index_source(home, "default", shop, encoder_ref=str(encoder_dir)).added == 9


def test_an_empty_folder_makes_an_empty_collection(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert counts(index_source(home, "default", tmp_path / "empty", encoder_ref=str(encoder_dir))) == (0, 0, 0, 0)
    page = Searcher(home).search_image("default", (write_photos(tmp_path / "q", 1) / "bag/0000.jpg").read_bytes())
    assert (page.total, page.results) == (0, [])


def test_a_link_out_of_the_folder_is_not_followed(home: Home, shop: Path, encoder_dir: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.jpg"
    draw_photo(1).save(outside)
    (shop / "link.jpg").symlink_to(outside)
    assert counts(index_source(home, "default", shop, encoder_ref=str(encoder_dir))) == (9, 0, 0, 1)
    assert "outside the source folder" in home.catalogue.rejects.all("default")[0].reason


def test_indexing_reads_what_the_preprocessing_reads(tmp_path: Path) -> None:
    """A large JPEG comes through the scaled decoder; it must stay close to decoding in full and shrinking."""
    Image.effect_mandelbrot((640, 480), (-2, -1, 1, 1), 60).convert("RGB").save(tmp_path / "big.jpg", quality=95)
    data = (tmp_path / "big.jpg").read_bytes()
    scaled = Preprocessing(size=64).apply(decode_image(data, at_least=64).pixels).astype(float)
    full = Preprocessing(size=64).apply(np.asarray(Image.open(tmp_path / "big.jpg"))).astype(float)
    assert np.abs(scaled - full).mean() < 4


def test_texts_that_no_database_can_hold_reject_their_rows_alone(any_home: Home, shop: Path, encoder_dir: Path) -> None:
    paths = [str(path.relative_to(shop)) for path in sorted(shop.rglob("*.jpg"))]
    texts = [{}, {"title": "cut emoji \ud83d"}, {"title": "a\0b"}, {"mood": "\ud83d"}, {"mo\0od": "x"}]
    rows = [{"item_id": f"i{n}", "image": paths[n], **more} for n, more in enumerate(texts)]
    rows += [{"item_id": "\ud83d", "image": paths[5]}, {"item_id": "a\0", "image": paths[6]}]
    rows += [{"item_id": "i7", "image": "\ud83d"}, {"item_id": "i8", "image": paths[8], "title": "last"}]
    (shop / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    report = index_source(any_home, "default", shop / "c.jsonl", encoder_ref=str(encoder_dir))
    assert counts(report) == (2, 0, 0, 7)
    rejects = any_home.catalogue.rejects.all("default")
    assert [reject.place for reject in rejects] == [f"c.jsonl row {number}" for number in range(2, 9)]
    assert rejects[0].reason.startswith("title contains U+D83D at character 11, which is not valid UTF-8 text")
    assert {key for key, _ in stored(any_home).keys()} == {"i0", "i8"}


def test_index_collections_and_rejects_list_count_the_same_rejects(
    any_home: Home, shop: Path, encoder_dir: Path
) -> None:
    (shop / "text.jpg").write_text("no picture")
    (shop / "a\nb.jpg").write_bytes(b"x")
    (shop / "loop.jpg").symlink_to("loop.jpg")
    report = index_source(any_home, "default", shop, encoder_ref=str(encoder_dir))
    assert counts(report) == (9, 0, 0, 3)
    (record,) = any_home.catalogue.collections.all()
    assert (record.images, record.rejected) == (9, 3)
    assert len(any_home.catalogue.rejects.all("default")) == 3


def test_images_in_a_parquet_column_are_kept_by_the_home_and_found(
    any_home: Home, shop: Path, encoder_dir: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    paths = sorted(shop.rglob("*.jpg"))
    contents = [path.read_bytes() for path in paths]
    rows = [{"item_id": f"i{n}", "image": {"bytes": data, "path": f"{n}.jpg"}} for n, data in enumerate(contents)]
    rows += [{"item_id": "broken", "image": {"bytes": b"no image", "path": None}}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), shop / "c.parquet")
    report = index_source(any_home, "default", shop / "c.parquet", encoder_ref=str(encoder_dir))
    assert counts(report) == (9, 0, 0, 1)
    assert all(uri.startswith("blob:") for _, uri in stored(any_home))
    page = Searcher(any_home).search_image("default", contents[3], k=1)
    assert page.results[0].item_id == "i3"
    assert image_file(any_home, "default", page.results[0].image_id).read_bytes() == contents[3]
    assert counts(index_source(any_home, "default", shop / "c.parquet")) == (0, 0, 9, 1)
