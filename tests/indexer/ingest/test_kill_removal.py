"""SIGKILL of `index --prune` and of `clean` while items are written, then the same command again.

Nothing that was acknowledged is lost, nothing that was removed comes back, and nothing is left that nothing refers to.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import images, items
from indexer.generations.store import verify
from indexer.ingest.clean import clean
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, get_item, put_item
from indexer.search.searcher import Searcher
from tests.commands import kill_when, start
from tests.conftest import write_photos
from tests.indexer.conftest import orphans, served, stored
from tests.indexer.ingest.test_clean import OLD, age, leftovers
from tests.indexer.search.pages import jpeg

KILLS = 10  # on each database
ALWAYS = (1, 2)  # the others are soak tests
PHOTOS = 60
CONTENTS = [jpeg(900 + number) for number in range(6)]  # few, so that a photo is uploaded again after its item's end
trials = pytest.mark.parametrize(
    "kill", [pytest.param(kill, marks=() if kill in ALWAYS else pytest.mark.soak) for kill in range(KILLS)]
)


class Writer:
    """Stores, replaces and deletes items until it is stopped; `live` is what was acknowledged last of each item."""

    def __init__(self, home: Home, seed: int) -> None:
        self.home = home
        self.rng = random.Random(seed)
        self.searcher = Searcher(home)
        self.live: dict[str, bytes | None] = {}

    def write_once(self) -> None:
        item_id = f"live-{self.rng.randrange(8)}"
        if self.live.get(item_id) is not None and self.rng.random() < 0.5:
            delete_item(self.home, "default", item_id)
            self.live[item_id] = None
        else:
            data = self.rng.choice(CONTENTS)
            put_item(self.home, self.searcher, "default", item_id, title=None, attributes={}, images=[data])
            self.live[item_id] = data
        for blob in self.home.path.glob("blobs/*/[0-9a-f]*"):  # or `clean` would keep them for an hour
            try:
                os.utime(blob, (OLD, OLD))
            except FileNotFoundError:
                continue

    @contextmanager
    def writing(self) -> Iterator[None]:
        stopped = threading.Event()

        def write() -> None:
            while not stopped.is_set():
                self.write_once()

        with ThreadPoolExecutor(1) as thread:
            written = thread.submit(write)
            try:
                yield
            finally:
                stopped.set()
            written.result()

    def check(self) -> None:
        """What was acknowledged is stored, served and found, and no more."""
        expected = {item_id: data for item_id, data in self.live.items() if data is not None}
        assert {item_id for item_id, _ in stored(self.home) if item_id.startswith("live-")} == set(expected)
        for item_id, data in expected.items():
            (image,) = get_item(self.home, "default", item_id).images
            assert self.home.uri_path(image.uri).read_bytes() == data
            page = self.searcher.search_image("default", data, k=8)
            assert item_id in [hit.item_id for hit in page.results if hit.score > 0.9999]


def command_of(
    home: Home, url: str, monkeypatch: pytest.MonkeyPatch, *words: object
) -> Callable[[Callable[[], bool]], bool]:
    """Start a command on a home and kill it at a moment; False if it ended before."""
    monkeypatch.setenv("NITAMONO_DATABASE_URL", url)
    return lambda moment: kill_when(start(*words, "--home", home.path), moment)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


@trials
def test_a_killed_clean_loses_and_leaves_nothing(
    kill: int, any_home: Home, database_url: str, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_source(any_home, "default", write_photos(tmp_path / "a", 4), encoder_ref=str(encoder_dir), processes=0)
    writer, rng = Writer(any_home, kill), random.Random(kill)
    for _ in range(12):
        writer.write_once()
    planted = sorted(leftovers(any_home))
    age(any_home.path)
    moment = [
        after(rng.uniform(0.2, 3.0)),
        lambda: any(not path.exists() for path in planted),
        lambda: not any(path.exists() for path in planted) and rng.random() < 0.3,
    ][kill % 3]
    with writer.writing():
        killed = command_of(any_home, database_url, monkeypatch, "clean")(moment)
    assert killed or kill % 3 == 0
    writer.check()
    age(any_home.path)
    clean(any_home)
    assert orphans(any_home) == []
    assert not any(path.exists() for path in planted)
    writer.check()
    assert verify(any_home, "default", 1) == []


def change(shop: Path) -> None:
    """A folder is renamed, photos are gone, and others are new."""
    (shop / "bag").rename(shop / "bags")
    for path in sorted((shop / "hat").iterdir())[::2]:
        path.unlink()
    write_photos(shop, 6, start=PHOTOS, categories=("mug",))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> dict[str, bytes]:
    """The vectors of the changed shop, by item_id."""
    folder = tmp_path_factory.mktemp("undisturbed")
    change(write_photos(folder / "shop", PHOTOS))
    with Home.open(folder / "home", create=True) as home:
        index_source(home, "default", folder / "shop", encoder_ref=str(encoder_dir), processes=0)
        return served(home)


def keys(home: Home) -> dict[str, tuple[int, int]]:
    """Item key and image_id by item_id."""
    query = sa.select(items.c.item_id, items.c.id, images.c.id).select_from(images.join(items))
    with home.catalogue.read() as connection:
        return {item_id: (pk, image_id) for item_id, pk, image_id in connection.execute(query)}


@pytest.mark.slow
@trials
def test_a_killed_prune_ends_the_same_when_it_is_started_again(
    kill: int,
    any_home: Home,
    database_url: str,
    tmp_path: Path,
    encoder_dir: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = write_photos(tmp_path / "shop", PHOTOS)
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    change(shop)
    before = keys(any_home)
    writer, rng = Writer(any_home, kill), random.Random(kill)
    generations = any_home.generations_directory("default")
    moment = [
        after(rng.uniform(0.3, 4.0)),
        lambda: any(item_id.startswith("bags/") for item_id in keys(any_home)),
        lambda: "hat/0001.jpg" not in keys(any_home),
        lambda: any(generations.glob(".building-*")),
    ][kill % 4]
    index = ("index", shop, "--prune", "--prune-limit", "0.4", "--processes", "0")
    with writer.writing():
        killed = command_of(any_home, database_url, monkeypatch, *index)(moment)
        delete_item(any_home, "default", "mug/0002.jpg")
    assert killed or kill % 4 == 0
    writer.check()
    report = index_source(any_home, "default", shop, prune=True, prune_limit=0.4, processes=0)
    assert (report.deleted, report.gone, report.rejected) == (1, 0, 0)
    writer.check()
    vectors = {item_id: vector for item_id, vector in served(any_home).items() if not item_id.startswith("live-")}
    assert vectors == {item_id: vector for item_id, vector in undisturbed.items() if item_id != "mug/0002.jpg"}
    left = {item_id: uri for item_id, uri in stored(any_home) if not item_id.startswith("live-")}
    assert left == {item_id: str(shop / item_id) for item_id in vectors}
    found = keys(any_home)
    assert [found[item_id.replace("bag/", "bags/")] for item_id in before if item_id.startswith("bag/")] == [
        key for item_id, key in before.items() if item_id.startswith("bag/")
    ]
    assert verify(any_home, "default", report.generation) == []
    age(any_home.path)
    clean(any_home)
    assert orphans(any_home) == []
    writer.check()


def test_a_photo_that_is_removed_while_it_is_stored_again_is_kept(
    home: Home, tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`clean` removes an unused photo right after a write has found it."""
    index_source(home, "default", write_photos(tmp_path / "a", 4), encoder_ref=str(encoder_dir), processes=0)
    data = (tmp_path / "a" / "bag" / "0000.jpg").read_bytes()
    uri = home.add_blob(data)
    calls: list[str] = []
    real = Home.add_blob

    def found_then_gone(self: Home, data: bytes) -> str:
        stored = real(self, data)
        if not calls:
            self.uri_path(stored).unlink()
        calls.append(stored)
        return stored

    monkeypatch.setattr(Home, "add_blob", found_then_gone)
    put_item(home, Searcher(home), "default", "new", title=None, attributes={}, images=[data])
    assert home.uri_path(uri).read_bytes() == data and len(calls) == 2
