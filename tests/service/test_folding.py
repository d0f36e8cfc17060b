"""Live items become part of the index in the background, while a server answers searches."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from service import folding
from service.folding import Folding
from service.settings import Settings
from tests.commands import json_of
from tests.indexer.search.pages import jpeg
from tests.service.conftest import ITEMS, Serve


def wait_until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def generation(path: Path) -> int | None:
    with Home.open(path) as home:
        return home.catalogue.search_state("shop").generation


def test_many_live_items_are_folded_while_searches_go_on(serve: Serve, home_copy: Path) -> None:
    """A deleted item stays away, a new one stays, and searches see no difference."""
    client = serve(home_copy)
    for number in (70, 71):
        assert client.put(f"/v1/collections/shop/items/late-{number}", files={"image": jpeg(number)}).status_code == 201
    assert client.delete("/v1/collections/shop/items/hat/0001").status_code == 204

    def found() -> list[tuple[str, float]]:
        answer = client.post("/v1/collections/shop/search", files={"image": jpeg(70)}, data={"k": 50}).json()
        return [(hit["item_id"], round(hit["score"], 4)) for hit in answer["results"]]

    before = found()
    assert before[0][0] == "late-70" and "hat/0001" not in dict(before)
    with Home.open(home_copy) as home:
        quiet = Folding(home, Settings(home=home_copy, fold_items=4), every=0.01)
        watching = Folding(home, Settings(home=home_copy, fold_items=3), every=0.01)
        assert (quiet.due(), watching.due()) == ([], ["shop"])
        watching.start()
        wait_until(lambda: home.catalogue.search_state("shop").generation == 2 and not watching.due())
        watching.stop()
        (record,) = (r for r in home.catalogue.generations.all("shop") if r.status == "active")
        assert record.count == ITEMS + 2 and home.catalogue.changes.live_items(1, record.watermark) == set()
    assert found() == before
    assert client.get("/v1/collections/shop/items/hat/0001").status_code == 404


def test_few_live_items_of_a_large_collection_wait(
    home_copy: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    client = serve(home_copy)
    client.put("/v1/collections/shop/items/late", files={"image": jpeg(70)})
    with Home.open(home_copy) as home:
        watching = Folding(home, Settings(home=home_copy, fold_items=1))
        assert watching.due() == ["shop"]
        monkeypatch.setattr(folding, "LIVE_SHARE", 0.5)
        assert watching.due() == []


def test_a_build_ends_with_the_server_and_the_old_generation_stays(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    client.put("/v1/collections/shop/items/late", files={"image": jpeg(70)})
    with Home.open(home_copy) as home, home.lock("collection-shop"):
        watching = Folding(home, Settings(home=home_copy, fold_items=1), every=0.01)
        watching.start()
        wait_until(lambda: watching._child is not None)
        child = watching._child
        assert child is not None
        watching.stop()
        assert child.poll() is not None
        assert home.catalogue.search_state("shop").generation == 1


def test_a_build_by_hand_does_nothing_twice(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    client.put("/v1/collections/shop/items/late", files={"image": jpeg(70)})
    for _ in range(2):
        report = json_of("generations", "build", "--collection", "shop", "--home", home_copy)
        assert report == {"generation": 2} and generation(home_copy) == 2
