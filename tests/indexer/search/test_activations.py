"""Searches while generations are activated, loaded slowly or not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.records import ActiveState, EncoderRecord
from indexer.errors import CorruptError
from indexer.generations.build import build_generation
from indexer.ingest.ingest import embed_missing, index_source
from indexer.ingest.items import delete_item, put_item
from indexer.ingest.promotion import activate
from indexer.search import searcher as search
from indexer.search.results import SearchPage
from indexer.search.searcher import Searcher
from indexer.search.view import View
from tests.indexer.search import pages
from tests.indexer.search.pages import jpeg, names
from training.errors import EncoderError, NitamonoError
from training.reference import describe_encoder

# Fixtures of the tests below.
indexed = pages.indexed


def test_searches_during_activations_all_succeed_and_never_mix(
    indexed: Home, other_encoder_dir: Path, encoder_dir: Path
) -> None:
    """Searches go on while the collection is re-indexed back and forth with encoders of different dimension."""
    searcher = Searcher(indexed)
    pages: list[SearchPage] = []
    failures: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            try:
                pages.append(searcher.search_image("default", jpeg(1), k=1))
            except Exception as exc:  # noqa: BLE001 - any failure at all fails the test
                failures.append(exc)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    shop = indexed.path.parent / "shop"
    for encoder in (other_encoder_dir, encoder_dir, other_encoder_dir):
        index_source(indexed, "default", shop, encoder_ref=str(encoder), processes=0)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    encoders = {record.number: record.encoder_id for record in indexed.catalogue.generations.all("default")}
    assert len({page.generation for page in pages}) >= 2, "no activation fell among the searches"
    for page in pages:
        assert page.encoder_id == encoders[page.generation]
        assert names(page) == ["hat/0001.jpg"]
        assert page.results[0].score == pytest.approx(1, abs=1e-4)


@pytest.fixture
def two_generations(indexed: Home, other_encoder_dir: Path) -> Home:
    """Generation 1 is in service, 2 by another encoder holds the same photos."""
    described = describe_encoder(other_encoder_dir)
    embed_missing(indexed, "default", described)
    record = EncoderRecord(
        described.encoder_id, described.family, described.dim, described.metric, described.config, described.card
    )
    build_generation(indexed, "default", record, activated=False)
    return indexed


@pytest.fixture
def held_loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Keeps what is loaded beside the one in service from being there; the call lets it, and waits until it is."""
    gate = threading.Event()
    load = search.load_view  # type: ignore[attr-defined]

    def held(home: Home, collection: str, state: ActiveState, before: View | None) -> View:
        view = load(home, collection, state, before)
        if threading.current_thread().name.startswith("load-"):
            assert gate.wait(60)
        return view

    def let() -> None:
        gate.set()
        wait_for_loading()

    monkeypatch.setattr(search, "load_view", held)
    monkeypatch.setattr(search, "PATIENCE", 0.01)
    yield let
    let()


def wait_for_loading() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("load-"):
            thread.join(60)


def answers(home: Home, *numbers: int) -> dict[int, SearchPage]:
    """What each generation answers to photo 1, by searchers that start with it; the last one stays in service."""
    found = {}
    for number in numbers:
        activate(home, "default", number)
        found[number] = Searcher(home).search_image("default", jpeg(1), k=20)
        assert found[number].generation == number
    return found


def search_until(searcher: Searcher, number: int) -> list[SearchPage]:
    """All answers up to the first by a generation, for half a minute at most."""
    deadline = time.monotonic() + 30
    pages = [searcher.search_image("default", jpeg(1), k=20)]
    while pages[-1].generation != number and time.monotonic() < deadline:
        pages.append(searcher.search_image("default", jpeg(1), k=20))
    return pages


def test_the_old_generation_answers_until_the_new_one_is_loaded(
    two_generations: Home, held_loading: Callable[[], None]
) -> None:
    expected = answers(two_generations, 2, 1)
    assert expected[1].encoder_id != expected[2].encoder_id
    assert [hit.score for hit in expected[1].results] != [hit.score for hit in expected[2].results]
    searcher = Searcher(two_generations)
    searcher.warm("default")
    activate(two_generations, "default", 2)
    for _ in range(5):
        assert searcher.search_image("default", jpeg(1), k=20) == expected[1]
    assert sum(thread.name == "load-default" for thread in threading.enumerate()) == 1
    held_loading()
    pages = search_until(searcher, 2)
    assert pages[-1] == expected[2]
    assert all(page == expected[1] for page in pages[:-1])
    assert searcher.search_item("default", "bag/0000.jpg").encoder_id == expected[2].encoder_id


def test_every_answer_is_of_one_encoder_while_generations_take_turns(two_generations: Home) -> None:
    """Exactly what that generation answers to the same question on its own."""
    expected = answers(two_generations, 2, 1)
    searcher = Searcher(two_generations)
    searcher.warm("default")
    pages: list[SearchPage] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                pages.append(searcher.search_image("default", jpeg(1), k=20))
        except NitamonoError as exc:
            failures.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    turns = (2, 1, 2)
    for number in turns:
        activate(two_generations, "default", number)
        assert search_until(searcher, number)[-1].generation == number
    done.set()
    for thread in threads:
        thread.join()
    wait_for_loading()
    assert failures == []
    assert {page.generation for page in pages} == {1, 2}
    assert all(page == expected[page.generation] for page in pages)


def test_the_first_search_after_a_write_knows_of_it_though_a_generation_was_activated_before(
    two_generations: Home, held_loading: Callable[[], None]
) -> None:
    searcher, writer = Searcher(two_generations), Searcher(two_generations)
    searcher.warm("default")
    activate(two_generations, "default", 2)
    assert searcher.search_image("default", jpeg(1), k=20).generation == 1
    delete_item(two_generations, "default", "hat/0001.jpg")
    page = searcher.search_image("default", jpeg(1), k=20)
    assert (page.generation, page.total) == (2, 11) and "hat/0001.jpg" not in names(page)
    activate(two_generations, "default", 1)
    put_item(two_generations, writer, "default", "new", title=None, attributes={}, images=[jpeg(90)])
    page = searcher.search_image("default", jpeg(90), k=20)
    assert (page.generation, page.total, names(page)[0]) == (1, 12, "new")
    assert page.results[0].score == pytest.approx(1, abs=1e-4)
    held_loading()  # what was loaded beside is of an earlier moment
    page = searcher.search_image("default", jpeg(90), k=20)
    assert (page.generation, page.total, names(page)[0]) == (1, 12, "new")
    assert "hat/0001.jpg" not in names(page)


def test_what_was_loaded_slowly_does_not_hide_a_later_write(
    two_generations: Home, held_loading: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search after the write waits for a load that began before it."""
    searcher = Searcher(two_generations)
    searcher.warm("default")
    activate(two_generations, "default", 2)
    assert searcher.search_image("default", jpeg(1), k=20).generation == 1
    delete_item(two_generations, "default", "hat/0001.jpg")
    assert searcher.search_image("default", jpeg(1), k=20).total == 11
    activate(two_generations, "default", 1)
    monkeypatch.setattr(search, "PATIENCE", 60)
    threading.Timer(0.05, held_loading).start()
    page = searcher.search_image("default", jpeg(1), k=20)
    assert page.total == 11 and "hat/0001.jpg" not in names(page)


@pytest.mark.parametrize("harm", ["index.faiss", "manifest.json", "ids.npy", "encoder"])
def test_a_generation_that_cannot_be_loaded_gives_its_error_and_no_stale_answers(
    harm: str, two_generations: Home
) -> None:
    searcher = Searcher(two_generations)
    searcher.warm("default")
    activate(two_generations, "default", 2)
    encoder_id = str(two_generations.catalogue.search_state("default").encoder_id)
    directory = two_generations.generation_directory("default", 2)
    broken = two_generations.encoder_directory(encoder_id) / "encoder.json" if harm == "encoder" else directory / harm
    broken.write_bytes(b"broken")
    for _ in range(3):
        with pytest.raises((CorruptError, EncoderError), match=broken.name):
            search_until(searcher, 2)
    activate(two_generations, "default", 1)
    assert searcher.search_image("default", jpeg(1)).generation == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_ours_while_a_generation_is_loaded_gives_no_stale_answers_either(
    two_generations: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = Searcher(two_generations)
    searcher.warm("default")
    activate(two_generations, "default", 2)

    def fail(*args: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(search, "load_view", fail)
        with pytest.raises(RuntimeError, match="a fault"):
            search_until(searcher, 2)
    assert searcher.search_image("default", jpeg(1)).generation == 2
