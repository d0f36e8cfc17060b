"""Which part of a query photo was searched with: the one that was asked for, the item that was found, or all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from indexer.search.regions import Region
from indexer.search.searcher import Searcher
from service.cli import app
from tests.finding import SEVERAL, SEVERAL_SIZE, finds_red, photo, several, shop_that_finds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["stretch", "pad"])
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("region")
    (folder / "photos").mkdir()
    for number in range(3):
        (folder / "photos" / f"{number}.png").write_bytes(photo(20 * number, 10 * number))
    encoder = finds_red(folder / "encoder", request.param)
    home = Home.open(folder / "home", create=True)
    index_source(home, "default", folder / "photos", encoder_ref=str(encoder), processes=0)
    return Searcher(home)


def test_the_item_found_is_told_in_the_photos_own_measures(searcher: Searcher) -> None:
    page = searcher.search_image("default", photo(100, 30))
    assert page.used is not None and page.used.chosen_by == "encoder"
    assert page.used.confidence is not None and page.used.confidence > 0.9
    region = page.used.region
    middle = (region.x + region.width / 2, region.y + region.height / 2)
    assert np.abs(np.subtract(middle, (120 / 160, 50 / 80))).max() < 0.06
    assert region.x <= 100 / 160 + 0.05 and region.x + region.width >= 140 / 160 - 0.05


def test_a_region_of_ones_own_overrides_what_would_be_found(searcher: Searcher) -> None:
    asked = Region(0.0, 0.0, 0.5, 1.0)
    page = searcher.search_image("default", photo(100, 30), region=asked)
    assert page.used is not None
    assert (page.used.region, page.used.chosen_by, page.used.confidence) == (asked, "request", None)


def test_the_regions_of_several_items_are_told_with_a_margin(searcher: Searcher) -> None:
    page = searcher.search_image("default", several(), find_items=True)
    assert page.regions is not None and len(page.regions) == len(SEVERAL)
    width, height = SEVERAL_SIZE
    by_place = sorted(page.regions, key=lambda item: item.region.x)
    for item, (left, top, right, bottom) in zip(by_place, SEVERAL, strict=True):
        region, margin = item.region, 0.08 * max(right - left, bottom - top)
        edges = np.array([region.x, region.y, region.x + region.width, region.y + region.height])
        expected = np.array([left - margin, top - margin, right + margin, bottom + margin])
        assert np.abs(edges * (width, height, width, height) - expected).max() < 8  # two of the finder's cells
        assert 0.3 <= item.confidence <= 1
    part = searcher.search_image("default", several(), region=by_place[1].region, find_items=True)
    assert part.regions == page.regions and part.used is not None and part.used.chosen_by == "request"
    assert searcher.search_image("default", several()).regions is None


def test_one_item_is_one_region(searcher: Searcher) -> None:
    (item,) = searcher.search_image("default", photo(100, 30), find_items=True).regions or []
    assert abs(item.region.x + item.region.width / 2 - 120 / 160) < 0.04


def test_searches_without_a_photo_tell_no_region(searcher: Searcher) -> None:
    item = searcher.search_image("default", photo(0, 0)).results[0].item_id
    page = searcher.search_item("default", item)
    assert page.used is None and page.regions is None


def test_the_command_looks_for_items_unless_a_region_is_given(tmp_path: Path) -> None:
    home, query = shop_that_finds(tmp_path), tmp_path / "query.png"
    query.write_bytes(several())
    command = ["search", str(query), "--home", str(home), "--collection", "shop", "--json"]
    whole = CliRunner().invoke(app, command)
    assert len(json.loads(whole.stdout)["regions"]) == len(SEVERAL) and "item 3 of 3: --region" in whole.stderr
    part = CliRunner().invoke(app, [*command, "--region", "0,0,0.5,1"])
    assert json.loads(part.stdout)["regions"] is None and "item 1 of" not in part.stderr
