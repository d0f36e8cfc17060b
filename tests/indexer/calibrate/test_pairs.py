"""The pairs that a calibration learns from, and the probabilities of hits on a page."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.calibrate.calibrate import calibration_of
from indexer.calibrate.calibration import PRESENT
from indexer.calibrate.pairs import Pairs, collect_pairs
from indexer.calibrate.probability import Curve, HitCurve, best_others
from indexer.catalogue.home import Home
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos
from tests.indexer.calibrate.catalogues import index, made_up, search, write_rows
from training.reference import describe_encoder


def test_neither_the_query_photo_nor_a_copy_of_it_is_found(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    shop = write_photos(tmp_path / "shop", 120, categories=("all",))
    rows = [(f"item-{number // 2}", f"all/{number:04d}.jpg") for number in range(120)]
    for number in range(0, 120, 2):
        shutil.copy(shop / f"all/{number:04d}.jpg", shop / f"all/copy-{number:04d}.jpg")
        rows.append((f"item-{number // 2}", f"all/copy-{number:04d}.jpg"))
    index(home, write_rows(shop / "shop.csv", rows), encoder_dir)
    pairs = pairs_of(home, encoder_dir)
    assert (pairs.truth, pairs.queries, pairs.first.sum()) == ("photos", 60, 66)
    assert pairs.scores.max() < 0.9999


def test_near_duplicates_of_two_items_are_one_product(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    shop = write_photos(tmp_path / "shop", 60, categories=("all",))
    for number in range(60):
        draw_photo(number).resize((144, 192)).save(shop / f"all/{number:04d}-again.jpg", quality=80)
    index(home, shop, encoder_dir)
    pairs = pairs_of(home, encoder_dir)
    assert (pairs.truth, pairs.queries) == ("views", 120)
    assert len(np.unique(pairs.groups)) < 70
    assert pairs.labels.sum() > 1.5 * pairs.queries


def pairs_of(home: Home, encoder: Path, present: float = PRESENT) -> Pairs:
    described = describe_encoder(encoder)
    return collect_pairs(home, home.catalogue.collection_id("default"), described, queries=400, present=present, seed=0)


def test_pairs_are_the_hits_and_scores_of_a_search(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """Items with two photos: a search by the query's vector, its photo taken away, gives the same scores.

    Every tenth query follows once more, without its product.
    """
    shop = write_photos(tmp_path / "shop", 120, categories=("all",))
    rows = [(f"item-{number // 2}", f"all/{number:04d}.jpg") for number in range(120)]
    index(home, write_rows(shop / "shop.csv", rows), encoder_dir)
    pairs = pairs_of(home, encoder_dir)
    described = describe_encoder(encoder_dir)
    with home.catalogue.vectors.snapshot(1, described.encoder_id, described.dim) as snapshot:
        (stored,) = snapshot.parts
    kept = list(zip(stored.ids[:, 1].tolist(), stored.vectors, strict=True))
    expected = set()
    for place, (pk, query) in enumerate(kept):
        best: dict[int, float] = {}
        for other, (item, vector) in enumerate(kept):
            if other != place:
                best[item] = max(best.get(item, -2.0), float(query @ vector))
        ranked = sorted(best.items(), key=lambda hit: -hit[1])[:10]
        expected.add((tuple(np.round([score for _, score in ranked], 3)), tuple(item == pk for item, _ in ranked)))
    for start in range(0, 10 * pairs.queries, 10):
        part = slice(start, start + 10)
        assert (tuple(np.round(pairs.scores[part], 3)), tuple(pairs.labels[part].tolist())) in expected
        assert pairs.first[part].tolist() == [True] + 9 * [False]
        best, second, *_ = pairs.scores[part]
        assert pairs.others[part].tolist() == [second] + 9 * [best]
    again = [pairs.scores[start : start + 10][~pairs.labels[start : start + 10]] for start in range(0, 600, 100)]
    np.testing.assert_array_equal(pairs.scores[600:], np.concatenate(again))
    np.testing.assert_array_equal(pairs.others[600:], np.concatenate([best_others(falling) for falling in again]))
    assert not pairs.labels[600:].any()
    assert pairs.first[600:].sum() == 6
    starts = np.flatnonzero(pairs.first)
    np.testing.assert_array_equal(pairs.groups[starts[60:]], pairs.groups[starts[:60:10]])
    assert pairs.present_search[:600].all() and not pairs.present_search[600:].any()


@pytest.mark.parametrize(("present", "there", "gone"), [(1.0, 60, 0), (0.75, 60, 20), (0.5, 60, 60), (0.2, 15, 60)])
def test_searches_for_what_is_there_have_the_share_that_is_asked_for(
    home: Home, tmp_path: Path, encoder_dir: Path, present: float, there: int, gone: int
) -> None:
    shop = write_photos(tmp_path / "shop", 120, categories=("all",))
    rows = [(f"item-{number // 2}", f"all/{number:04d}.jpg") for number in range(120)]
    index(home, write_rows(shop / "shop.csv", rows), encoder_dir)
    pairs = pairs_of(home, encoder_dir, present)
    kinds = pairs.present_search[pairs.first]
    assert (kinds.sum(), (~kinds).sum(), pairs.present) == (there, gone, present)
    assert not pairs.labels[~pairs.present_search].any()


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Iterator[Searcher]:
    """Sixty items with one photo each, every sixth on shelf 0, and a curve made by hand, of s - o / 2 from -1 to 1."""
    folder = tmp_path_factory.mktemp("shelves")
    shop = write_photos(folder / "shop", 60, categories=("all",))
    with (shop / "shop.csv").open("w", newline="") as file:
        rows = [(f"item-{number}", f"all/{number:04d}.jpg", number % 6, number) for number in range(60)]
        csv.writer(file).writerows([("item_id", "image", "shelf", "place"), *rows])
    curve, alone = Curve("isotonic", ((-1.0, 0.05), (1.0, 0.95))), Curve("isotonic", ((-1.0, 0.25), (1.0, 0.75)))
    encoder_id = describe_encoder(encoder_dir).encoder_id
    by_hand = replace(calibration_of(made_up(), encoder_id), curve=HitCurve(curve, 0.5, alone))
    with Home.open(folder / "home", create=True) as home:
        index(home, shop / "shop.csv", encoder_dir)
        home.catalogue.calibrations.put(1, encoder_id, by_hand.to_json())
        yield Searcher(home)


@pytest.mark.parametrize("filters", [{}, {"shelf": "0"}], ids=["all", "filtered"])
def test_a_hit_has_one_probability_on_whatever_page_it_is(shelves: Searcher, filters: dict[str, str]) -> None:
    whole = search(shelves, k=10, filters=filters).results
    best, second = whole[0].score, whole[1].score
    clear = [hit.score - (second if place == 0 else best) / 2 for place, hit in enumerate(whole)]
    expected = [0.5 + 0.45 * value for value in clear]
    assert [hit.probability for hit in whole] == pytest.approx(expected, abs=1e-6)
    assert expected == sorted(expected, reverse=True)
    assert len(set(expected)) == 10
    for k in (1, 2, 3):
        pages = [search(shelves, k=k, offset=offset, filters=filters).results for offset in range(0, 10, k)]
        hits = [hit for page in pages for hit in page][:10]
        assert [hit.item_id for hit in hits] == [hit.item_id for hit in whole]
        assert [hit.probability for hit in hits] == pytest.approx(expected, abs=1e-6)


def test_a_hit_that_has_no_other_is_judged_by_its_score(shelves: Searcher) -> None:
    [hit] = search(shelves, filters={"place": "7"}, k=5).results
    assert hit.probability == pytest.approx(0.5 + 0.25 * hit.score)
    assert search(shelves, filters={"place": "7"}, k=5, offset=1).results == []


@pytest.mark.parametrize("photos_of_an_item", [1, 2])
def test_pairs_do_not_depend_on_the_parts_in_which_vectors_are_read(
    photos_of_an_item: int, home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 120, categories=("all",))
    rows = [(f"item-{number % (120 // photos_of_an_item)}", f"all/{number:04d}.jpg") for number in range(120)]
    index(home, write_rows(shop / "shop.csv", rows), encoder_dir)
    whole = pairs_of(home, encoder_dir)
    monkeypatch.setattr("indexer.catalogue.vectors.STREAMED", 7)
    parts = pairs_of(home, encoder_dir)
    assert whole.truth == ("views" if photos_of_an_item == 1 else "photos")
    np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-6)
    np.testing.assert_array_equal(parts.labels, whole.labels)
