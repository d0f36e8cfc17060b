"""Calibrations of real catalogues, by real encoders, in real databases."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import indexer.ingest.ingest
from indexer.calibrate.calibrate import calibrate, calibration_of
from indexer.calibrate.calibration import PRESENT, Calibration, stored_calibration
from indexer.calibrate.pairs import Pairs, collect_pairs
from indexer.calibrate.probability import Curve, HitCurve, best_others, bins_for, expected_calibration_error, fit
from indexer.catalogue.home import Home
from indexer.errors import (
    BusyError,
    CalibrationError,
    CorruptError,
    InvalidRequestError,
    MismatchError,
    NotFoundError,
)
from indexer.ingest.ingest import index_source
from indexer.measures.metrics import Bootstrap
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from service.cli import app
from tests.conftest import draw_photo, write_photos
from training.data.studio.catalogue import write_catalogue
from training.reference import describe_encoder

ITEMS = 100


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things photographed three times each; read only."""
    folder = tmp_path_factory.mktemp("studio") / "shop"
    write_catalogue(folder, items=ITEMS, photos_per_item=3, size=48, stock="solids", processes=0)
    return folder


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("item_id", "image"), *rows])
    return path


def photos_of(studio: Path, numbers: tuple[int, ...]) -> list[tuple[str, str]]:
    """(item_id, image) of the photos with these numbers of every item."""
    with (studio / "catalogue.csv").open() as file:
        rows = [(row["item_id"], row["image"]) for row in csv.DictReader(file)]
    return [row for place, row in enumerate(rows) if place % 3 in numbers]


def index(home: Home, source: Path, encoder: Path | str | None = None) -> dict[str, float]:
    return index_source(home, "default", source, encoder_ref=str(encoder) if encoder else None, processes=0).seconds


def search(searcher: Searcher, number: int = 3, **options: Any) -> SearchPage:
    import io

    buffer = io.BytesIO()
    draw_photo(number).save(buffer, "JPEG", quality=90)
    return searcher.search_image("default", buffer.getvalue(), **options)


def found(home: Home, searcher: Searcher, number: int = 3) -> list[float | None]:
    return [hit.probability for hit in search(searcher, number).results]


def made_up(seed: int = 0, count: int = 600) -> Pairs:
    rng = np.random.default_rng(seed)
    falling = -np.sort(-rng.uniform(0, 1, (count // 10, 10)), axis=1)
    scores, others = falling.ravel(), best_others(falling).ravel()
    labels = rng.random(count) < 1 / (1 + np.exp(7 - 12 * (scores - 0.5 * others)))
    return Pairs(
        scores, others, labels, np.arange(count) // 10, np.arange(count) % 10 == 0, "photos", count // 10, 999,
        np.ones(count, bool), 1.0,
    )  # fmt: skip


def test_the_studio_is_calibrated_on_pairs_held_out_and_on_photos_it_never_had(home: Home, studio: Path) -> None:
    seconds = index(home, write_rows(studio / "two.csv", photos_of(studio, (0, 1))), "robust-vae-small-64")
    assert 0 < seconds["calibrate"] < seconds["total"]
    calibration = calibrate(home, "default")
    assert (calibration.truth, calibration.queries, calibration.images) == ("photos", ITEMS, 2 * ITEMS)
    assert calibration.pairs == sum(point.pairs for point in calibration.reliability)
    assert 10.9 * ITEMS <= calibration.pairs <= 11 * ITEMS, "ten hits, and nine or ten of every tenth query once more"
    assert calibration.ece <= 0.05
    assert calibration.ece_ci[0] <= calibration.ece <= calibration.ece_ci[1]
    # Of a hundred first hits true probabilities show 0.07 by chance, and hardly ever 0.12; the score alone shows 0.19.
    assert calibration.ece_first_chance <= 0.08
    assert calibration.ece_first <= calibration.ece_first_chance + 0.05
    assert calibration.ece_first_ci[0] <= calibration.ece_first <= calibration.ece_first_ci[1]
    assert calibration.curve.margin_share > 0.5
    searcher = Searcher(home)
    probabilities, labels, first = [], [], []
    for item_id, image in photos_of(studio, (2,)):
        page = searcher.search_image("default", (studio / image).read_bytes())
        of_page = [hit.probability or 0.0 for hit in page.results]
        assert of_page == sorted(of_page, reverse=True)
        assert all(0 < value < 1 for value in of_page)
        probabilities += of_page
        labels += [hit.item_id == item_id for hit in page.results]
        first += [place == 0 for place in range(len(of_page))]
    of_first, right = np.array(probabilities)[first], np.array(labels)[first]
    assert expected_calibration_error(of_first, right, bins_for(len(right))) <= 0.15
    assert abs(of_first.mean() - right.mean()) <= 0.12, "the tenth that asks for what is not there, and chance"
    assert expected_calibration_error(np.array(probabilities), np.array(labels)) <= 0.05
    assert np.std(probabilities) > 0.1, "every hit has the same probability: nothing was learnt"
    same, other = (np.mean(np.array(probabilities)[np.array(labels) == kind]) for kind in (True, False))
    assert same > 3 * other
    by_item = searcher.search_item("default", photos_of(studio, (0,))[0][0])
    assert {hit.probability for hit in by_item.results} == {None}


def test_items_with_one_photo_are_asked_for_by_other_views(home: Home, studio: Path) -> None:
    index(home, write_rows(studio / "one.csv", photos_of(studio, (0,))), "robust-vae-small-64")
    calibration = calibrate(home, "default")
    assert (calibration.truth, calibration.queries, calibration.images) == ("views", ITEMS, ITEMS)
    assert calibration.positives > 0.8 * ITEMS
    assert calibration.ece <= 0.05
    assert calibration.ece_first <= 0.05
    assert calibrate(home, "default") == calibration, "one seed, two results"


def test_the_first_hit_for_a_thing_that_is_not_there_is_not_believed(home: Home, studio: Path) -> None:
    """Something always comes first, and a little clear of the rest; that alone makes it no match."""
    there, absent = photos_of(studio, (0,))[:-20], photos_of(studio, (0,))[-20:]
    index(home, write_rows(studio / "some.csv", there), "robust-vae-small-64")
    searcher = Searcher(home)
    right, wrong = (
        [searcher.search_image("default", (studio / image).read_bytes()).results[0] for _, image in rows]
        for rows in (there[:20], absent)
    )
    assert [hit.item_id for hit in right] == [item_id for item_id, _ in there[:20]]
    assert min(hit.probability or 0.0 for hit in right) > 0.9
    assert np.mean([hit.probability or 0.0 for hit in wrong]) < 0.35


def test_probabilities_are_right_where_half_of_the_searches_are_for_what_is_not_there(home: Home, studio: Path) -> None:
    """Learnt from half of the items, judged on the others: learnt of the default share, hits claim too much."""
    index(home, studio / "catalogue.csv", "robust-vae-small-64")
    described = describe_encoder("robust-vae-small-64")

    def pairs(present: float) -> Pairs:
        return collect_pairs(home, 1, described, queries=ITEMS, present=present, seed=0)

    half, claimed = pairs(0.5), {}
    for present in (PRESENT, 0.5):
        learnt, claimed[present] = pairs(present), np.empty(len(half.scores))
        for side in (0, 1):
            seen, asked = learnt.groups % 2 == side, half.groups % 2 != side
            curve = fit(learnt.scores[seen], learnt.others[seen], learnt.labels[seen], learnt.groups[seen])
            claimed[present][asked] = curve(half.scores[asked], half.others[asked])
    claim, right = {}, {}
    for present, probabilities in claimed.items():
        shown = probabilities >= 0.5
        claim[present] = probabilities[shown].mean()
        right[present] = Bootstrap([str(group) for group in half.groups[shown]]).share(half.labels[shown].astype(float))
    assert claim[PRESENT] > right[PRESENT].high + 0.03
    assert right[0.5].low < claim[0.5] < right[0.5].high


def test_a_share_is_kept_until_another_is_set(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    index(home, write_photos(tmp_path / "shop", 60), encoder_dir)
    assert calibrate(home, "default").present == PRESENT
    assert calibrate(home, "default", present=0.6).present == 0.6
    assert calibrate(home, "default").present == 0.6


def test_files_that_are_gone_are_left_out_until_too_few_are_left(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    files = sorted(shop.rglob("*.jpg"))
    files[0].write_bytes(b"something else")
    files[1].unlink()
    assert calibrate(home, "default").queries == 58
    for path in files[2:20]:
        path.unlink()
    with pytest.raises(CalibrationError, match="'default' cannot be calibrated: 40 of 60 photos can still be read"):
        calibrate(home, "default")
    assert None not in found(home, Searcher(home)), "what was learnt before stays"


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
    _, stored = home.catalogue.vectors.snapshot(1, describe_encoder(encoder_dir).encoder_id)
    kept = list(zip(stored.ids[:, 1].tolist(), stored.vectors, strict=True))
    expected = set()
    for place, (pk, query) in enumerate(kept):
        best: dict[int, float] = {}
        for other, (item, vector) in enumerate(kept):
            if other != place:
                best[item] = max(best.get(item, -2.0), float(query @ vector))
        ranked = sorted(best.items(), key=lambda hit: -hit[1])[:10]
        expected.add((tuple(np.round([score for _, score in ranked], 3)), tuple(item == pk for item, _ in ranked)))
    for query in range(pairs.queries):
        part = slice(10 * query, 10 * query + 10)
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


def test_a_curve_of_the_score_alone_as_once_stored_is_not_used_and_is_renewed(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    encoder_id = describe_encoder(encoder_dir).encoder_id
    now = home.catalogue.calibrations.get(1, encoder_id) or {}
    new = ("margin_share", "alone", "ece_first_ci", "ece_first_chance")
    home.catalogue.calibrations.put(1, encoder_id, {name: value for name, value in now.items() if name not in new})
    searcher = Searcher(home)
    assert set(found(home, searcher)) == {None}
    index(home, shop)
    assert home.catalogue.calibrations.get(1, encoder_id) == now
    assert None not in found(home, searcher)


def test_a_calibration_as_once_stored_without_a_share_is_used_and_is_of_the_default(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    index(home, write_photos(tmp_path / "shop", 60), encoder_dir)
    encoder_id = describe_encoder(encoder_dir).encoder_id
    now = home.catalogue.calibrations.get(1, encoder_id) or {}
    once = {name: value for name, value in now.items() if name not in ("present", "ece_chance")}
    home.catalogue.calibrations.put(1, encoder_id, once)
    stored = stored_calibration(home, 1, encoder_id)
    assert stored is not None and stored.present == PRESENT
    assert stored.ece_chance == pytest.approx(now["ece_chance"], abs=0.01)
    assert None not in found(home, Searcher(home))


@pytest.mark.parametrize("present", [0.0, -0.5, 1.5])
def test_a_share_that_cannot_be_is_refused(home: Home, present: float) -> None:
    home.catalogue.ensure_collection("default")
    with pytest.raises(InvalidRequestError, match=f"above 0 and at most 1, or auto, not {present}"):
        calibrate(home, "default", present=present)


def test_too_few_items_are_indexed_without_and_refused_by_name(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    seconds = index(home, write_photos(tmp_path / "shop", 12), encoder_dir)
    assert seconds["calibrate"] >= 0
    assert set(found(home, Searcher(home))) == {None}
    with pytest.raises(CalibrationError, match="'default' cannot be calibrated: 12 items .* 50 are needed"):
        calibrate(home, "default")


def test_a_refusal_is_remembered_and_harms_nothing(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    """Sixty times the same photo: all one product, with nothing to tell it from."""
    shop = write_photos(tmp_path / "shop", 1, categories=("all",))
    for number in range(1, 60):
        shutil.copy(shop / "all/0000.jpg", shop / f"all/{number:04d}.jpg")
    index(home, shop, encoder_dir)
    tried = home.catalogue.search_state("default").calibrated_at
    assert tried is not None
    assert set(found(home, Searcher(home))) == {None}
    index(home, shop)
    assert home.catalogue.search_state("default").calibrated_at == tried
    with pytest.raises(CalibrationError, match="600 of 600 pairs are of the same product; 20 of each kind are needed"):
        calibrate(home, "default")


def test_a_busy_catalogue_leaves_the_index_in_service_and_the_calibration_due(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise BusyError("the catalogue is being written by another process")

    shop = write_photos(tmp_path / "shop", 60)
    with monkeypatch.context() as held:
        held.setattr(home.catalogue.calibrations, "put", busy)
        index(home, shop, encoder_dir)
    assert set(found(home, Searcher(home))) == {None}
    index(home, shop)
    assert None not in found(home, Searcher(home))


def test_a_collection_is_calibrated_once_and_again_when_it_has_doubled(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    with monkeypatch.context() as killed:
        killed.setattr(indexer.ingest.ingest, "calibrate_if_due", lambda *_, **__: None)
        index(home, shop, encoder_dir)
    searcher = Searcher(home)
    assert set(found(home, searcher)) == {None}
    index(home, shop)  # nothing has changed, but what was not done before is made up for
    assert None not in found(home, searcher), "a searcher that was open already does not see it"
    first = home.catalogue.search_state("default").calibrated_at
    for count, again in ((110, False), (120, True)):
        index(home, write_photos(tmp_path / "shop", count))
        assert (home.catalogue.search_state("default").calibrated_at != first) is again
    assert (home.catalogue.calibrations.get(1, str(home.catalogue.search_state("default").encoder_id)) or {})[
        "images"
    ] == 120


def test_another_encoders_calibration_is_never_used(
    home: Home, tmp_path: Path, encoder_dir: Path, other_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    old, new = describe_encoder(encoder_dir), describe_encoder(other_encoder_dir)
    searcher = Searcher(home)
    assert None not in found(home, searcher)
    with pytest.raises(MismatchError, match="60 images of 'default' lack a vector by encoder"):
        calibrate(home, "default", encoder_id=new.encoder_id)
    monkeypatch.setattr(indexer.ingest.ingest, "calibrate_if_due", lambda *_, **__: None)
    index(home, shop, other_encoder_dir)
    assert set(found(home, searcher)) == {None}
    assert calibrate(home, "default", encoder_id=old.encoder_id).encoder_id == old.encoder_id
    assert set(found(home, searcher)) == {None}
    assert calibrate(home, "default").encoder_id == new.encoder_id
    assert None not in found(home, searcher)


def test_a_calibration_comes_back_from_json_as_it_was() -> None:
    calibration = calibration_of(made_up(), "e" * 64)
    document = json.loads(json.dumps(calibration.to_json()))
    assert Calibration.from_json(document) == calibration
    assert (document["kind"], document["truth"], document["pairs"]) == (calibration.kind, "photos", 600)
    for name in document:
        with pytest.raises(CorruptError, match="run `nitamono calibrate`"):
            Calibration.from_json({key: value for key, value in document.items() if key != name})


def test_pairs_of_one_kind_alone_are_refused() -> None:
    pairs = made_up()
    none = replace(pairs, labels=pairs.scores > 2)
    with pytest.raises(CalibrationError, match="0 of 600 pairs are of the same product"):
        calibration_of(none, "e")


def test_the_catalogue_keeps_the_last_calibration_of_each_encoder(any_home: Home, encoder_dir: Path) -> None:
    described = describe_encoder(encoder_dir)
    any_home.add_encoder(described)
    collection_id = any_home.catalogue.ensure_collection("default")
    assert any_home.catalogue.calibrations.get(collection_id, described.encoder_id) is None
    for content in ({"images": 1, "knots": [[0.5, 0.25]]}, {"images": 2}):
        any_home.catalogue.calibrations.put(collection_id, described.encoder_id, content)
        assert any_home.catalogue.calibrations.get(collection_id, described.encoder_id) == content
    assert any_home.catalogue.calibrations.get(collection_id, "other") is None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_the_command_says_what_was_found_or_what_is_missing(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    command = ("-m", "service.cli", "calibrate", "--home", str(home.path))
    home.catalogue.ensure_collection("default")
    with pytest.raises(NotFoundError, match="no index yet"):
        calibrate(home, "default")
    index(home, write_photos(tmp_path / "shop", 12), encoder_dir)
    refused = run(*command)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "50 are needed" in refused.stderr
    index(home, write_photos(tmp_path / "shop", 60))
    done = CliRunner().invoke(app, [*command[2:], "--json"])
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["collection"], document["truth"], document["queries"]) == ("default", "views", 60)
    shown = {"kind", "pairs", "positives", "ece", "ece_ci", "ece_chance", "ece_first_ci", "knots", "margin_share"}
    assert shown <= document.keys() and document["present"] == PRESENT
    half = json.loads(CliRunner().invoke(app, [*command[2:], "--json", "--present", "0.5"]).stdout)
    assert half["present"] == 0.5
    for wrong, told in (
        ("most", "'most' must be a share such as 0.8, or auto"),
        ("auto", "0 recent queries are stored"),
    ):
        refused = run(*command, "--present", wrong)
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert told in refused.stderr


def test_indexing_what_has_not_changed_loads_nothing_to_calibrate_with(
    home: Home, tmp_path: Path, encoder_dir: Path
) -> None:
    shop = write_photos(tmp_path / "shop", 60)
    index(home, shop, encoder_dir)
    code = (
        "import sys; from pathlib import Path; from indexer.catalogue.home import Home\n"
        "from indexer.ingest.ingest import index_source\n"
        f"with Home.open({str(home.path)!r}) as home:\n"
        f"    report = index_source(home, 'default', Path({str(shop)!r}))\n"
        "print(report.unchanged, *sorted({'torch', 'sklearn', 'scipy', 'cv2', 'faiss'} & set(sys.modules)))"
    )
    assert run("-c", code).stdout.split() == ["60"]
