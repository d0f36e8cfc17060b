"""The items that match a filter, kept up to date by looking at changed items alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.attributes import Attributes
from indexer.catalogue.home import Home
from indexer.errors import InvalidRequestError
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, put_item
from indexer.search import filters as module
from indexer.search.filters import FilterMatches
from indexer.search.searcher import Searcher
from tests.indexer.search.pages import jpeg, write_coloured

FILTERS = ({"colour": "red"}, {"colour": "blue"}, {"colour": "red", "size": "small"})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How many items each lookup looked at; None for all."""
    found: list[int | None] = []
    real = Attributes.matching_items

    def spied(
        self: Attributes, collection_id: int, filters: Mapping[str, str], among: Iterable[int] | None = None
    ) -> list[int]:
        chosen = None if among is None else list(among)
        found.append(None if chosen is None else len(chosen))
        return real(self, collection_id, filters, chosen)

    monkeypatch.setattr(Attributes, "matching_items", spied)
    return found


def test_matches_follow_every_kind_of_change(
    any_home: Home, tmp_path: Path, encoder_dir: Path, looked_at: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_coloured(tmp_path / "shop", 12)
    index_source(any_home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    searcher, matches = Searcher(any_home), FilterMatches(any_home.catalogue)

    def check(expected_looks: int | None) -> None:
        state = any_home.catalogue.search_state("default")
        for wanted in FILTERS[:2]:
            looked_at.clear()
            found = matches.items(state.collection_id, wanted, state.last_change).tolist()
            assert looked_at == [] if expected_looks == 0 else looked_at == [expected_looks]
            assert found == any_home.catalogue.attributes.matching_items(state.collection_id, wanted)

    def put(item: str, **attributes: Any) -> None:
        put_item(any_home, searcher, "default", item, title=None, attributes=attributes, images=[jpeg(77)])

    check(None)
    check(0)
    put("item-1", colour="blue")
    put("new", colour="red")
    check(2)
    delete_item(any_home, "default", "copy-2")
    check(1)
    source.write_text(source.read_text().replace(",blue", ",red", 1))
    index_source(any_home, "default", source, processes=0)  # another description of item-0
    check(1)
    monkeypatch.setattr(module, "LOOKED_UP", 1)
    put("item-3", colour="blue")
    put("item-2", colour="blue")
    check(None)


def test_an_attribute_that_no_item_has_is_named(home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    index_source(home, "default", write_coloured(tmp_path / "shop", 6), encoder_ref=str(encoder_dir), processes=0)
    state = home.catalogue.search_state("default")
    matches = FilterMatches(home.catalogue)
    assert matches.items(state.collection_id, {"colour": "green"}, state.last_change).tolist() == []
    with pytest.raises(InvalidRequestError, match="no item has an attribute 'size'; attributes are colour"):
        matches.items(state.collection_id, FILTERS[2], state.last_change)


def test_few_filters_are_kept(home: Home, tmp_path: Path, encoder_dir: Path, looked_at: list[int | None]) -> None:
    index_source(home, "default", write_coloured(tmp_path / "shop", 3), encoder_ref=str(encoder_dir), processes=0)
    state = home.catalogue.search_state("default")
    matches = FilterMatches(home.catalogue)
    for number in [*range(module.KEPT + 1), module.KEPT, 0]:
        matches.items(state.collection_id, {"colour": f"c{number}"}, state.last_change)
    assert len(looked_at) == module.KEPT + 2  # the first was forgotten
