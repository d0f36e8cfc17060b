"""Files of a generation or an encoder that are damaged after they were loaded: searched from memory, and reported."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.ingest.repair import repair
from tests.indexer.ingest.test_repair import flip
from tests.service.conftest import Serve

SEARCH = "/v1/collections/shop/search"
HARMS: dict[str, Callable[[Path], object]] = {
    "index.faiss": lambda folder: flip(folder / "index.faiss"),
    "ids.npy": lambda folder: flip(folder / "ids.npy"),
    "neighbours.npy": lambda folder: flip(folder / "neighbours.npy"),
    "manifest.json": lambda folder: flip(folder / "manifest.json"),
    "cut": lambda folder: os.truncate(folder / "index.faiss", 100),
    "deleted": shutil.rmtree,
}


def state_of(client: httpx.Client) -> dict[str, Any]:
    """The state of the only collection; a server that is too busy to check who asks names none, so this asks again."""
    named = (client.get("/readyz").json()["collections"] for _ in range(20))
    (state,) = next(states for states in named if states)
    return dict(state)


@pytest.mark.parametrize("harm", HARMS)
def test_damage_to_a_loaded_generation_changes_no_result_and_is_reported_until_it_is_repaired(
    harm: str, serve: Serve, home_copy: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(home_copy)
    form = {"k": "30", "rerank": "reciprocal"}
    before = client.post(SEARCH, files={"image": photo}, data=form).json()["results"]
    with Home.open(home_copy) as home:
        HARMS[harm](home.generation_directory("shop", 1))
        for _ in range(2):
            state = state_of(client)
            assert state["ready"] and "searches use the copy in memory" in state["reason"]
        assert 'nitamono_generation_damaged{collection="shop"} 1.0' in client.get("/metrics").text
        assert client.post(SEARCH, files={"image": photo}, data=form).json()["results"] == before
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        assert repair(home).rebuilt == {"shop": 2}
    after = client.post(SEARCH, files={"image": photo}, data=form).json()["results"]
    assert [hit["item_id"] for hit in after] == [hit["item_id"] for hit in before]
    states = (state_of(client) for _ in range(1000))
    assert next(state for state in states if state["generation"] == 2)["reason"] is None
    assert 'nitamono_generation_damaged{collection="shop"} 0.0' in client.get("/metrics").text


def test_damage_to_a_loaded_encoder_is_reported(serve: Serve, home_copy: Path, photo: bytes) -> None:
    client = serve(home_copy)
    assert client.post(SEARCH, files={"image": photo}).status_code == 200
    (encoder,) = (home_copy / "encoders").iterdir()
    flip(encoder / "weights.safetensors")
    state = state_of(client)
    assert state["ready"] and "nitamono repair" in state["reason"]
    assert client.post(SEARCH, files={"image": photo}).status_code == 200


def test_a_touched_file_is_whole(serve: Serve, home_copy: Path, photo: bytes) -> None:
    client = serve(home_copy)
    assert client.post(SEARCH, files={"image": photo}).status_code == 200
    with Home.open(home_copy) as home:
        for path in home.generation_directory("shop", 1).iterdir():
            shutil.copy(path, home_copy / "copy")
            os.replace(home_copy / "copy", path)
    assert state_of(client)["reason"] is None
