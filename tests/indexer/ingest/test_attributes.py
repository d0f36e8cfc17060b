"""Attributes are bounded, by one rule for sources and HTTP, and so are facets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexer.catalogue.attributes import FACET_ATTRIBUTES, FACET_VALUES
from indexer.catalogue.home import Home
from indexer.catalogue.schema import items
from indexer.errors import InvalidRequestError
from indexer.ingest.attributes import MAX_ATTRIBUTES, MAX_NAME, MAX_TOTAL, MAX_VALUE, attributes_fault
from indexer.ingest.ingest import index_source
from indexer.ingest.items import put_item
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo

FAULTS = {
    "too many": {f"a{n}": "x" for n in range(MAX_ATTRIBUTES + 1)},
    "a long name": {"n" * (MAX_NAME + 1): "x"},
    "a long value": {"a": "x" * (MAX_VALUE + 1)},
    "too much in all": {f"a{n}": "x" * MAX_VALUE for n in range(MAX_TOTAL // MAX_VALUE)},
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_limit_has_a_reason_that_names_it(name: str) -> None:
    fault = attributes_fault(FAULTS[name])
    assert fault is not None
    assert any(str(limit) in fault for limit in (MAX_ATTRIBUTES, MAX_NAME, MAX_VALUE, MAX_TOTAL))


def test_attributes_within_the_limits_have_no_fault() -> None:
    assert attributes_fault({f"a{n}": "x" * 100 for n in range(MAX_ATTRIBUTES)}) is None
    assert attributes_fault({"n" * MAX_NAME: "x" * MAX_VALUE}) is None


def test_a_source_and_a_write_obey_the_same_rule(tmp_path: Path, encoder_dir: Path) -> None:
    photo = tmp_path / "a.jpg"
    draw_photo(1).save(photo)
    rows = [{"item_id": "good", "image": "a.jpg", "colour": "red"}]
    rows += [{"item_id": name, "image": "a.jpg", **attributes} for name, attributes in FAULTS.items()]
    manifest = tmp_path / "shop.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Home.open(tmp_path / "home", create=True) as home:
        report = index_source(home, "shop", manifest, encoder_ref=str(encoder_dir), processes=0)
        assert (report.added, report.rejected) == (1, len(FAULTS))
        for attributes in FAULTS.values():
            with pytest.raises(InvalidRequestError, match="limit|expected"):
                put_item(
                    home, Searcher(home), "shop", "new", title=None, attributes=attributes, images=[photo.read_bytes()]
                )


def test_facets_list_the_most_frequent_values_of_the_most_frequent_attributes(
    database_url: str, tmp_path: Path
) -> None:
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as home:
        collection = home.catalogue.ensure_collection("shop")
        rows = []
        for number in range(FACET_VALUES + 20):
            attributes = {"number": str(number), "colour": "red" if number % 3 else "blue", "text": "x" * 500}
            if number == 0:
                attributes |= {f"rare{n:03d}": "y" for n in range(FACET_ATTRIBUTES + 5)}
            rows.append({"collection_id": collection, "item_id": str(number), "attributes": attributes})
        with home.catalogue.write() as connection:
            connection.execute(items.insert(), [{**row, **_times()} for row in rows])
        facets = home.catalogue.attributes.facets("shop")
    assert len(facets) == FACET_ATTRIBUTES
    assert facets["colour"] == [("red", 80), ("blue", 40)]
    assert len(facets["number"]) == FACET_VALUES
    assert facets["number"][:2] == [("0", 1), ("1", 1)]
    assert "text" not in facets


def _times() -> dict[str, object]:
    from indexer.catalogue.values import now

    return {name: now() for name in ("created_at", "updated_at") if name in items.c}
