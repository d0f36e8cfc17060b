"""Search against brute force, on real FAISS indexes and databases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from indexer.catalogue.home import Home
from indexer.catalogue.records import ItemSummary
from indexer.errors import InvalidRequestError, NotFoundError
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, get_item, image_file, put_item
from indexer.search.regions import Region, parse_region
from indexer.search.searcher import Searcher
from indexer.vectors import Allowed
from indexer.vectors.exact import exact_scores, recall_against_exact
from indexer.vectors.faiss import FaissIndex
from indexer.vectors.kinds import INDEX
from tests.indexer.search import pages
from tests.indexer.search.pages import change_live, check_every_page, jpeg, names, write_coloured
from training.errors import ImageError
from training.reference import Metric

# Fixtures of the tests below.
indexed = pages.indexed

vectors_and_queries = st.integers(1, 12).flatmap(
    lambda dim: st.tuples(
        hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(dim)), elements=st.integers(-3, 3)),
        hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(dim)), elements=st.integers(-3, 3)),
    )
)


@given(vectors_and_queries, st.integers(1, 50), st.sampled_from(["cosine", "l2"]), st.data())
@settings(max_examples=200, deadline=None)
def test_faiss_equals_brute_force_with_ties_and_selection(
    arrays: tuple[np.ndarray, np.ndarray], k: int, metric: Metric, data: st.DataObject
) -> None:
    """Small whole numbers make equal scores common: any of the equals may come, but no worse one."""
    vectors, queries = arrays
    mask = data.draw(st.none() | hnp.arrays(bool, len(vectors)))
    found = FaissIndex.exact(vectors, metric).search(queries, k, None if mask is None else Allowed(mask))
    exact = exact_scores(queries, vectors, metric)
    if mask is not None:
        exact = np.where(mask, exact, -np.inf)
    possible = int(mask.sum()) if mask is not None else len(vectors)
    for row in range(len(queries)):
        real = found.positions[row] >= 0
        positions = found.positions[row][real]
        assert len(positions) == len(set(positions.tolist())) == min(k, possible)
        best = np.sort(exact[row])[::-1][: len(positions)]
        np.testing.assert_allclose(exact[row][positions], best, atol=1e-4)
        np.testing.assert_allclose(found.scores[row][real], best, atol=1e-4)


def test_an_index_read_from_disk_gives_what_was_built(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 24)).astype(np.float32)
    built = FaissIndex.exact(vectors, "l2")
    built.write(tmp_path / INDEX)
    read = FaissIndex.read(tmp_path)
    np.testing.assert_array_equal(built.search(vectors, 7).positions, read.search(vectors, 7).positions)
    assert recall_against_exact(read, vectors, "l2") == 1.0


def test_every_page_equals_brute_force_over_items(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """Several images per item, doubles among them, some items replaced and some deleted live."""
    index_source(any_home, "default", write_coloured(tmp_path / "shop", 30), encoder_ref=str(encoder_dir))
    searcher = Searcher(any_home)
    change_live(any_home, searcher)
    check_every_page(any_home, searcher, atol=1e-5)


def test_an_uploaded_catalogue_photo_finds_itself_first(indexed: Home, tmp_path: Path) -> None:
    searcher = Searcher(indexed)
    for path in sorted((tmp_path / "shop").rglob("*.jpg")):
        page = searcher.search_image("default", path.read_bytes(), k=3)
        assert names(page)[0] == str(path.relative_to(tmp_path / "shop"))
        assert page.results[0].score == pytest.approx(1, abs=1e-5)
        assert page.results[0].score >= page.results[1].score >= page.results[2].score


def test_more_like_this_leaves_the_item_itself_out(indexed: Home) -> None:
    page = Searcher(indexed).search_item("default", "bag/0000.jpg", k=50)
    assert (len(page.results), page.total) == (11, 11)
    assert "bag/0000.jpg" not in names(page)
    page = Searcher(indexed).search_item("default", "bag/0000.jpg", k=50, filters={"category": "bag"})
    assert (len(page.results), page.total) == (3, 3)


def test_a_region_is_searched_as_if_it_were_the_image(indexed: Home) -> None:
    import io

    from PIL import Image

    left = Image.open(io.BytesIO(jpeg(3)))
    both = Image.new("RGB", (left.width * 2, left.height), "white")
    both.paste(left, (0, 0))
    buffer = io.BytesIO()
    both.save(buffer, "PNG")
    page = Searcher(indexed).search_image("default", buffer.getvalue(), k=1, region=Region(0, 0, 0.5, 1))
    assert names(page) == ["bag/0003.jpg"]
    assert page.results[0].score > 0.99


def test_a_put_item_is_found_at_once_by_every_searcher_and_survives_the_next_generation(indexed: Home) -> None:
    one, two = Searcher(indexed), Searcher(indexed)
    two.warm("default")
    record, created = put_item(
        indexed, one, "default", "new", title="New", attributes={"category": "x"}, images=[jpeg(90)]
    )
    assert created and record.images[0].status == "ok"
    for searcher in (one, two):
        assert names(searcher.search_image("default", jpeg(90), k=1)) == ["new"]
    record, created = put_item(indexed, one, "default", "new", title="Newer", attributes={}, images=[jpeg(91)])
    assert not created
    assert names(two.search_image("default", jpeg(91), k=1)) == ["new"]
    assert two.search_image("default", jpeg(90), k=1).results[0].score < 0.9999
    assert image_file(indexed, "default", record.images[0].image_id).read_bytes() == jpeg(91)
    before = two.search_image("default", jpeg(91), k=50)
    with indexed.lock("collection-default"):
        pass
    index_source(indexed, "default", indexed.path.parent / "shop")
    after = Searcher(indexed).search_image("default", jpeg(91), k=50)
    assert after.generation == before.generation + 1
    assert [(h.item_id, round(h.score, 4)) for h in after.results] == [
        (h.item_id, round(h.score, 4)) for h in before.results
    ]


def test_a_deleted_item_is_gone_at_once_and_after_a_restart(indexed: Home) -> None:
    searcher = Searcher(indexed)
    searcher.warm("default")
    delete_item(indexed, "default", "bag/0000.jpg")
    for each in (searcher, Searcher(indexed)):
        page = each.search_image("default", jpeg(0), k=50)
        assert "bag/0000.jpg" not in names(page) and page.total == 11
    with pytest.raises(NotFoundError, match="no item 'bag/0000.jpg'"):
        get_item(indexed, "default", "bag/0000.jpg")


def test_an_item_that_is_deleted_while_a_search_looks_it_up_is_replaced_by_the_next(
    indexed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = Searcher(indexed)
    before = names(searcher.search_image("default", jpeg(3), k=6))
    looked_up = indexed.catalogue.items.summaries
    waiting = [before[1], before[2]]

    def after_a_delete(*arguments: Any) -> dict[int, ItemSummary]:
        if waiting:
            delete_item(indexed, "default", waiting.pop())
        return looked_up(*arguments)

    monkeypatch.setattr(indexed.catalogue.items, "summaries", after_a_delete)
    assert names(searcher.search_image("default", jpeg(3), k=4)) == [before[0], *before[3:]]


def test_a_bad_image_among_several_stores_nothing(indexed: Home) -> None:
    with pytest.raises(ImageError):
        put_item(indexed, Searcher(indexed), "default", "new", title=None, attributes={}, images=[jpeg(1), b"bad"])
    with pytest.raises(NotFoundError):
        get_item(indexed, "default", "new")


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("k", {"k": 0}),
        ("k", {"k": -1}),
        ("k", {"k": 1001}),
        ("offset", {"offset": -1}),
        ("offset", {"offset": 10_000}),
        ("filter", {"filters": {"colour": "red"}}),
    ],
)
def test_bad_pages_and_filters_name_the_field(indexed: Home, field: str, call: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        Searcher(indexed).search_image("default", jpeg(0), **call)
    assert error.value.field == field


@pytest.mark.parametrize("vector", [[1.0], [0.0] * 768, [float("nan")] * 768, [float("inf")] * 768, []])
def test_bad_vectors_are_refused(indexed: Home, vector: list[float]) -> None:
    with pytest.raises(InvalidRequestError) as error:
        Searcher(indexed).search_vector("default", vector)
    assert error.value.field == "vector"


@pytest.mark.parametrize(
    "text", ["", "1,2", "0,0,0,0", "a,b,c,d", "0,0,2,1", "-1,0,1,1", "nan,0,1,1", "0.5,0.5,0.6,0.1"]
)
def test_bad_regions_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="region"):
        parse_region(text)


@given(
    st.integers(1, 300), st.integers(1, 300),
    st.floats(0, 0.999), st.floats(0, 0.999), st.floats(1e-4, 1), st.floats(1e-4, 1),
)  # fmt: skip
def test_a_region_always_holds_a_pixel(
    width: int, height: int, x: float, y: float, region_width: float, region_height: float
) -> None:
    region = Region(x, y, min(region_width, 1 - x), min(region_height, 1 - y))
    crop = region.crop(np.zeros((height, width, 3), np.uint8))
    assert 1 <= crop.shape[0] <= height and 1 <= crop.shape[1] <= width
