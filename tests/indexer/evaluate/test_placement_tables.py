"""Recall by scale and place in a comparison: its JSON, its console table and its report."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from indexer.compare.comparison import compare_encoders
from indexer.compare.report import write_comparison
from indexer.compare.results import Comparison
from indexer.evaluate.placement_tables import placement_lines, placement_tables
from indexer.swaps.placement import GROUNDS, PER_GROUND
from indexer.swaps.swap_set import SwapSet

pytestmark = pytest.mark.slow


class Tables(HTMLParser):
    """The captions of a page's tables, and the words of its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.captions: list[str] = []
        self.pictures: list[str] = []
        self.headings: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        if tag == "img":
            self.pictures.append(str(dict(attrs)["alt"]))

    def handle_data(self, data: str) -> None:
        if self._inside == "caption":
            self.captions.append(data)
        if self._inside == "h2":
            self.headings.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture(scope="module")
def plain(drawn: SwapSet) -> SwapSet:
    return replace(drawn, factorial=None, factor_photos=None)


@pytest.fixture(scope="module")
def comparison(plain: SwapSet) -> Comparison:
    return compare_encoders(plain, ["pixels", "hog"], replicates=50, seed=2)


def test_a_comparison_has_figures_by_scale_and_place_and_differences_to_the_first(comparison: Comparison) -> None:
    document = json.loads(json.dumps(comparison.to_json()))["encoders"]
    for name, found in document.items():
        placement = found["placement"]
        assert placement["items"] == 8 and set(GROUNDS) <= set(placement)
        differences = placement["difference_to_first"]
        assert list(differences) == ([] if name == "pixels" else [
            "recall@1 anywhere, white", "map@r anywhere, white", "recall@1 anywhere, other", "map@r anywhere, other",
        ])  # fmt: skip
    gain = [document[name]["placement"]["white"]["recall@1"]["anywhere"]["value"] for name in ("hog", "pixels")]
    told = document["hog"]["placement"]["difference_to_first"]["recall@1 anywhere, white"]["value"]
    assert told == pytest.approx(gain[0] - gain[1])


def test_the_console_shows_both_grounds_of_each_encoder(comparison: Comparison) -> None:
    head, columns, *rows = comparison.to_text().splitlines()[-4:]
    assert head.startswith("recall@1 of 8 items by scale and place")
    assert columns.split(",  ") != [] and columns.count("anywhere") == 2 and columns.count("retention") == 2
    assert [row.split()[0] for row in rows] == list(comparison.encoders)
    test = comparison.encoders["hog"].placement
    assert test is not None
    row = next(row for row in rows if row.startswith("hog"))
    for ground in GROUNDS:
        assert test.figures[ground]["recall@1"].anywhere.to_text() in row


def test_it_can_be_left_out(plain: SwapSet, tmp_path: Path) -> None:
    found = compare_encoders(plain, ["pixels"], placement=False, replicates=20, seed=2)
    assert found.encoders["pixels"].placement is None and found.encoders["pixels"].to_json()["placement"] is None
    assert "scale and place" not in found.to_text()
    assert placement_lines({"pixels": None}) == [] and placement_tables({"pixels": None}, "pixels") == []
    without = compare_encoders(replace(plain, layers=None), ["pixels"], replicates=20, seed=2)
    assert without.encoders["pixels"].placement is None, "the set does not hold what the queries are made of"
    page = Tables()
    page.feed(write_comparison(found, tmp_path / "compare.html").read_text())
    assert "Recall by scale and place of the item" not in page.headings and "Maps of the vectors" in page.headings


def test_the_report_has_tables_and_the_queries_of_one_item(comparison: Comparison, tmp_path: Path) -> None:
    page = Tables()
    html = write_comparison(comparison, tmp_path / "compare.html").read_text()
    page.feed(html)
    assert "Recall by scale and place of the item" in page.headings and 'href="#placement"' in html
    for caption in (
        "recall@1 by scale and place, on white", "recall@1 by scale and place, on other backgrounds",
        "Differences to pixels by placement",
    ):  # fmt: skip
        assert page.captions.count(caption) == 1
    shown = [words for words in page.pictures if " at scale " in words]
    assert len(shown) == len(GROUNDS) * PER_GROUND and len(set(shown)) == len(GROUNDS) * 4
    tables = dict(placement_tables({name: found.placement for name, found in comparison.encoders.items()}, "pixels"))
    table = tables["On white"]
    assert [row.name for row in table.rows] == list(comparison.encoders)
    assert [column.name for column in table.columns] == [
        "middle", "anywhere", "retention", "scale 0.7", "scale 0.5", "scale 0.3", "centre", "edge", "corner",
        "MAP@R anywhere",
    ]  # fmt: skip
    assert {len(row.cells) for row in table.rows} == {10}
