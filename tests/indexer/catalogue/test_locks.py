"""A catalogue that another process has locked: reading goes on, and writing gives up after a while."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from indexer.errors import BusyError

WAIT = 0.5


def test_a_write_gives_up_while_another_process_writes_and_reads_go_on(tmp_path: Path, database_url: str) -> None:
    with (
        Home.open(tmp_path / "home", database_url=database_url, create=True, write_wait=WAIT) as home,
        Home.open(tmp_path / "home", database_url=database_url) as other,
    ):
        collection = home.catalogue.ensure_collection("shop")
        with other.catalogue.images.no_writes():  # holds the rows that every write of an item locks
            began = time.monotonic()
            assert home.catalogue.images.photos(collection) == []
            read = time.monotonic() - began
            with pytest.raises(BusyError, match="another process is writing the catalogue"):
                home.catalogue.items.delete(collection, "x")
            waited = time.monotonic() - began - read
        assert read < WAIT <= waited < 20 * WAIT
