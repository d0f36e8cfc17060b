"""Calibrations of real catalogues, by real encoders, in real databases."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from indexer.calibrate.calibrate import calibrate
from indexer.calibrate.calibration import PRESENT
from indexer.calibrate.pairs import Pairs, collect_pairs
from indexer.calibrate.probability import bins_for, expected_calibration_error, fit
from indexer.catalogue.home import Home
from indexer.errors import (
    CalibrationError,
)
from indexer.measures.metrics import Bootstrap
from indexer.search.searcher import Searcher
from tests.conftest import write_photos
from tests.indexer.calibrate.catalogues import found, index, write_rows
from training.data.studio.catalogue import write_catalogue
from training.reference import describe_encoder

ITEMS = 100


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things photographed three times each; read only."""
    folder = tmp_path_factory.mktemp("studio") / "shop"
    write_catalogue(folder, items=ITEMS, photos_per_item=3, size=48, stock="solids", processes=0)
    return folder


def photos_of(studio: Path, numbers: tuple[int, ...]) -> list[tuple[str, str]]:
    """(item_id, image) of the photos with these numbers of every item."""
    with (studio / "catalogue.csv").open() as file:
        rows = [(row["item_id"], row["image"]) for row in csv.DictReader(file)]
    return [row for place, row in enumerate(rows) if place % 3 in numbers]


@pytest.mark.slow
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


@pytest.mark.slow
def test_items_with_one_photo_are_asked_for_by_other_views(home: Home, studio: Path) -> None:
    index(home, write_rows(studio / "one.csv", photos_of(studio, (0,))), "robust-vae-small-64")
    calibration = calibrate(home, "default")
    assert (calibration.truth, calibration.queries, calibration.images) == ("views", ITEMS, ITEMS)
    assert calibration.positives > 0.8 * ITEMS
    assert calibration.ece <= 0.05
    assert calibration.ece_first <= 0.05
    assert calibrate(home, "default") == calibration, "one seed, two results"


@pytest.mark.slow
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


@pytest.mark.slow
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
