"""Servers keep the vectors of recent image searches, and nothing that befalls the log reaches a request."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.schema import recent_queries
from indexer.search.searcher import Searcher
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import running
from training.data.decode import decode_image
from training.embedder import load_embedder, prepare

SEARCH = "/v1/collections/shop/search"


def ask(home: Path, *requests: dict[str, Any], **settings: Any) -> None:
    """Send searches to a server of its own, which is closed by the time this returns."""
    with ExitStack() as stack:
        url = stack.enter_context(running(create_app(Settings(home=home, **settings))))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        for request in requests:
            response = client.post(SEARCH, **request)
            assert response.status_code == 200, response.text
            assert response.json()["results"]


def kept(home: Path) -> list[np.ndarray]:
    with Home.open(home) as opened:
        state = opened.catalogue.search_state("shop")
        return [vector for _, vector in opened.catalogue.queries.all(state.collection_id, str(state.encoder_id))]


def test_image_searches_are_kept_and_other_searches_are_not(home_copy: Path, photo: bytes, encoder_dir: Path) -> None:
    item = {"json": {"item_id": "bag/0000"}}
    vector = {"json": {"vector": [1.0] * 768}}
    ask(
        home_copy,
        {"files": {"image": photo}},
        item,
        vector,
        {"files": {"image": photo}, "data": {"region": "0,0,1,.5"}},
    )
    of_region, of_photo = kept(home_copy)
    embedder = load_embedder(encoder_dir)
    expected = embedder.embed(prepare(embedder, decode_image(photo, at_least=16)))[0]
    np.testing.assert_allclose(of_photo, expected, atol=1e-6)
    assert not np.array_equal(of_region, of_photo)


def test_no_more_are_kept_than_the_setting_says(home_copy: Path, photo: bytes) -> None:
    ask(home_copy, *[{"files": {"image": photo}}] * 5, query_log=3)
    assert len(kept(home_copy)) == 3
    ask(home_copy, {"files": {"image": photo}}, query_log=2)
    assert len(kept(home_copy)) == 2


def test_zero_keeps_none(home_copy: Path, photo: bytes) -> None:
    ask(home_copy, {"files": {"image": photo}}, query_log=0)
    assert kept(home_copy) == []


def test_a_search_of_the_command_line_is_not_kept(home_copy: Path, photo: bytes) -> None:
    with Home.open(home_copy) as home:
        Searcher(home).search_image("shop", photo)
    assert kept(home_copy) == []


def test_a_search_is_answered_though_the_log_cannot_be_written(
    home_copy: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with Home.open(home_copy) as home, home.catalogue.write() as connection:
        recent_queries.drop(connection)
    with caplog.at_level(logging.WARNING, logger="nitamono"):
        ask(home_copy, {"files": {"image": photo}}, {"files": {"image": photo}})
    assert "2 recent queries were not stored" in caplog.text
