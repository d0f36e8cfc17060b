"""Putting another encoder's generation into service: what is uploaded, deleted or replaced meanwhile is kept so."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.catalogue.records import EncoderRecord, GenerationRecord
from indexer.errors import BusyError, NotFoundError
from indexer.generations.build import build_generation
from indexer.generations.store import find_generation, verify
from indexer.ingest import ingest, promotion
from indexer.ingest.ingest import embed_missing, index_source
from indexer.ingest.items import delete_item, get_item, put_item
from indexer.ingest.promotion import activate, put_into_service, rollback
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos
from training.reference import EncoderDescription, describe_encoder

PHOTOS = 9


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    draw_photo(number).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", PHOTOS)


@pytest.fixture
def indexed(any_home: Home, shop: Path, encoder_dir: Path) -> Home:
    """Serves generation 1, by the first encoder."""
    index_source(any_home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    return any_home


@pytest.fixture
def other(other_encoder_dir: Path) -> EncoderDescription:
    return describe_encoder(other_encoder_dir)


def embed(home: Home, encoder: EncoderDescription) -> int:
    return embed_missing(home, "default", encoder, processes=0)


def build(home: Home, encoder: EncoderDescription) -> GenerationRecord:
    """A generation by another encoder, as a retraining builds one: aside, not yet in service."""
    record = EncoderRecord(
        encoder.encoder_id, encoder.family, encoder.dim, encoder.metric, encoder.config, encoder.card
    )
    return build_generation(home, "default", record, activated=False)


def upload(home: Home, item_id: str, photo: int) -> None:
    put_item(home, Searcher(home), "default", item_id, title=None, attributes={}, images=[jpeg(photo)])


def assert_served(home: Home, encoder: EncoderDescription | str, *, items: int, new: dict[str, int]) -> None:
    """A searcher that starts now, and one that has served all along, find each new item by its photo."""
    encoder_id = encoder if isinstance(encoder, str) else encoder.encoder_id
    searcher = Searcher(home)
    for item_id, photo in new.items():
        page = searcher.search_image("default", jpeg(photo), k=items + 5)
        assert page.encoder_id == encoder_id
        assert page.total == len(page.results) == items
        assert page.results[0].item_id == item_id
        assert page.results[0].score == pytest.approx(1, abs=1e-4)
    state = home.catalogue.search_state("default")
    assert state.encoder_id == encoder_id and state.generation is not None
    assert verify(home, "default", state.generation) == []
    assert home.catalogue.vectors.missing(state.collection_id, encoder_id) == []


def test_what_is_uploaded_after_a_generation_was_built_is_found_by_it_and_after_a_rollback(
    indexed: Home, other: EncoderDescription
) -> None:
    first = str(indexed.catalogue.search_state("default").encoder_id)
    embed(indexed, other)
    generation = build(indexed, other)
    upload(indexed, "before", 50)
    assert activate(indexed, "default", generation.number).status == "active"
    assert_served(indexed, other, items=PHOTOS + 1, new={"before": 50})
    upload(indexed, "after", 51)
    assert rollback(indexed, "default").encoder_id == first
    assert_served(indexed, first, items=PHOTOS + 2, new={"before": 50, "after": 51})
    assert activate(indexed, "default", generation.number).encoder_id == other.encoder_id
    assert_served(indexed, other, items=PHOTOS + 2, new={"before": 50, "after": 51})


def test_what_is_uploaded_between_embedding_and_building_is_found_once_the_generation_serves(
    indexed: Home, other: EncoderDescription
) -> None:
    """The generation's watermark is past the upload, which has no vector by its encoder yet."""
    assert embed(indexed, other) == PHOTOS
    upload(indexed, "between", 50)
    generation = build(indexed, other)
    assert generation.count == PHOTOS
    put_into_service(indexed, "default", generation)
    assert_served(indexed, other, items=PHOTOS + 1, new={"between": 50})
    report = index_source(indexed, "default", indexed.path.parent / "shop", processes=0)
    assert find_generation(indexed, "default", report.generation).count == PHOTOS + 1
    assert_served(indexed, other, items=PHOTOS + 1, new={"between": 50})


def test_embedding_for_another_encoder_changes_nothing_for_the_one_in_service(
    indexed: Home, other: EncoderDescription
) -> None:
    searcher = Searcher(indexed)
    upload(indexed, "live", 50)
    before = searcher.search_image("default", jpeg(3), k=20)
    embed(indexed, other)
    assert searcher.search_image("default", jpeg(3), k=20) == before
    assert Searcher(indexed).search_image("default", jpeg(3), k=20) == before


def test_a_generation_is_not_activated_while_a_vector_is_missing(indexed: Home, other: EncoderDescription) -> None:
    collection_id = indexed.catalogue.collection_id("default")
    embed(indexed, other)
    generation = build(indexed, other)
    upload(indexed, "late", 50)
    before = indexed.catalogue.search_state("default")
    assert not indexed.catalogue.generations.activate_complete(collection_id, generation.number, other.encoder_id)
    assert indexed.catalogue.search_state("default") == before
    assert find_generation(indexed, "default", generation.number).activated_at is None
    assert embed(indexed, other) == 1
    assert indexed.catalogue.generations.activate_complete(collection_id, generation.number, other.encoder_id)
    assert indexed.catalogue.search_state("default").generation == generation.number


def test_uploads_that_never_end_are_said_to_be_the_reason(
    indexed: Home, other: EncoderDescription, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(indexed, other)
    generation = build(indexed, other)
    uploaded = iter(range(50, 100))

    def embed_and_upload(*args: Any, **options: Any) -> int:
        count = embed_missing(*args, **options)
        upload(indexed, "busy", next(uploaded))
        return count

    monkeypatch.setattr(promotion, "ROUNDS", 3)
    monkeypatch.setattr(promotion, "embed_missing", embed_and_upload)
    upload(indexed, "busy", 49)
    with pytest.raises(BusyError, match="receives photos faster than they are embedded"):
        put_into_service(indexed, "default", generation)
    assert next(uploaded) == 53
    assert indexed.catalogue.search_state("default").generation == 1


def test_a_photo_whose_file_is_gone_is_set_aside_and_keeps_nothing_from_service(
    indexed: Home, shop: Path, other: EncoderDescription
) -> None:
    embed(indexed, other)
    generation = build(indexed, other)
    write_photos(shop, 2, start=PHOTOS)
    index_source(indexed, "default", shop, processes=0)
    (shop / "bag/0009.jpg").unlink()
    activate(indexed, "default", generation.number)
    assert indexed.catalogue.search_state("default").encoder_id == other.encoder_id
    rejected = indexed.catalogue.rejects.all("default")
    assert [(r.item_id, r.reason) for r in rejected] == [("bag/0009.jpg", "the file does not exist")]
    assert_served(indexed, other, items=PHOTOS + 1, new={"hat/0010.jpg": 10})


def test_photos_that_were_away_while_they_were_embedded_are_served_again_once_they_are_back(
    indexed: Home, shop: Path, other: EncoderDescription
) -> None:
    """The files are the ones that were indexed, to the size and the time."""
    first = str(indexed.catalogue.search_state("default").encoder_id)
    shop.rename(shop.with_name("away"))
    assert embed(indexed, other) == 0
    assert len(indexed.catalogue.rejects.all("default")) == PHOTOS
    shop.with_name("away").rename(shop)
    report = index_source(indexed, "default", shop, processes=0)
    assert (report.updated, report.rejected) == (PHOTOS, 0)
    assert indexed.catalogue.rejects.all("default") == []
    assert_served(indexed, first, items=PHOTOS, new={"bag/0000.jpg": 0})
    again = index_source(indexed, "default", shop, processes=0)
    assert (again.unchanged, again.generation) == (PHOTOS, report.generation)


@pytest.fixture
def while_embedding(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Calls to make once the photos to embed are listed and read, before their vectors are stored."""
    calls: list[Any] = []
    embed_files = ingest.embed_files  # type: ignore[attr-defined]

    def slow(*args: Any, **options: Any) -> Iterator[list[Any]]:
        for batch in embed_files(*args, **options):
            while calls:
                calls.pop()()
            yield batch

    monkeypatch.setattr(ingest, "embed_files", slow)
    yield calls
    assert calls == []


def test_what_is_deleted_while_it_is_embedded_stays_deleted(
    indexed: Home, other: EncoderDescription, while_embedding: list[Any]
) -> None:
    while_embedding.append(lambda: delete_item(indexed, "default", "bag/0000.jpg"))
    assert embed(indexed, other) == PHOTOS
    with pytest.raises(NotFoundError):
        get_item(indexed, "default", "bag/0000.jpg")
    activate(indexed, "default", build(indexed, other).number)
    assert_served(indexed, other, items=PHOTOS - 1, new={"hat/0001.jpg": 1})


def test_what_is_replaced_while_it_is_embedded_keeps_its_new_photo_alone(
    indexed: Home, other: EncoderDescription, while_embedding: list[Any]
) -> None:
    while_embedding.append(lambda: upload(indexed, "bag/0000.jpg", 50))
    embed(indexed, other)
    (image,) = get_item(indexed, "default", "bag/0000.jpg").images
    assert image.uri.startswith("blob:")
    activate(indexed, "default", build(indexed, other).number)
    assert_served(indexed, other, items=PHOTOS, new={"bag/0000.jpg": 50, "hat/0001.jpg": 1})


def test_what_is_uploaded_while_others_are_embedded_is_found_once_the_generation_serves(
    indexed: Home, other: EncoderDescription, while_embedding: list[Any]
) -> None:
    while_embedding.append(lambda: upload(indexed, "meanwhile", 50))
    embed(indexed, other)
    activate(indexed, "default", build(indexed, other).number)
    assert_served(indexed, other, items=PHOTOS + 1, new={"meanwhile": 50})
