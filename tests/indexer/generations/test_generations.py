"""Generations: what is verified, activated, rolled back and removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import generations
from indexer.errors import CorruptError, NotFoundError
from indexer.generations.store import KEEP, list_generations, verify
from indexer.ingest.ingest import index_source
from indexer.ingest.promotion import activate, rollback
from indexer.search.searcher import Searcher
from tests.conftest import draw_photo, write_photos
from training.files import sha256_of


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 6)


def grow(home: Home, shop: Path, encoder: Path, times: int) -> None:
    """Index again and again, with one photo more each time."""
    for _ in range(times):
        write_photos(shop, 1, start=len(list(shop.rglob("*.jpg"))))
        index_source(home, "default", shop, encoder_ref=str(encoder))


def active(home: Home) -> int:
    return next(record.number for record in list_generations(home, "default") if record.status == "active")


def test_rollback_and_activate_move_what_is_served(home: Home, shop: Path, encoder_dir: Path) -> None:
    grow(home, shop, encoder_dir, 3)
    query = (shop / "bag/0000.jpg").read_bytes()
    searcher = Searcher(home)
    totals = [searcher.search_image("default", query).total]
    for step in (
        lambda: rollback(home, "default"),
        lambda: rollback(home, "default"),
        lambda: activate(home, "default", 3),
    ):
        step()
        totals.append(searcher.search_image("default", query).total)
    assert totals == [9, 8, 7, 9]
    assert rollback(home, "default").number == 1  # what was served before
    with pytest.raises(NotFoundError, match="no earlier generation"):
        rollback(home, "default")


def test_what_was_written_live_stays_visible_after_a_rollback(home: Home, shop: Path, encoder_dir: Path) -> None:
    from indexer.ingest.items import put_item

    grow(home, shop, encoder_dir, 2)
    draw_photo(99).save(shop / "new.png")
    data = (shop / "new.png").read_bytes()
    searcher = Searcher(home)
    put_item(home, searcher, "default", "live", title=None, attributes={}, images=[data])
    rollback(home, "default")
    assert searcher.search_image("default", data, k=1).results[0].item_id == "live"


def test_old_generations_are_removed_but_never_the_active_one(home: Home, shop: Path, encoder_dir: Path) -> None:
    grow(home, shop, encoder_dir, KEEP + 2)
    records = list_generations(home, "default")
    assert [record.status for record in records] == ["removed"] * 2 + ["retired"] * (KEEP - 1) + ["active"]
    kept = {entry.name for entry in home.generations_directory("default").iterdir()}
    assert kept == {f"{record.number:06d}" for record in records if record.status != "removed"}
    with pytest.raises(NotFoundError, match="was removed; it keeps 3, 4, 5"):
        activate(home, "default", 1)


def test_what_was_rolled_back_to_is_kept_and_rolled_back_to_again(home: Home, shop: Path, encoder_dir: Path) -> None:
    """Other processes may still search it, and those in between were left for a reason."""
    grow(home, shop, encoder_dir, KEEP)
    activate(home, "default", 1)
    grow(home, shop, encoder_dir, 1)
    kept = [record.number for record in list_generations(home, "default") if record.status != "removed"]
    assert kept == [1, 2, 3, 4] and active(home) == 4
    assert rollback(home, "default").number == 1


def test_a_generation_that_is_activated_while_it_is_removed_stays(
    home: Home, shop: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(home, shop, encoder_dir, KEEP)
    mark_removed = home.catalogue.generations.mark_removed

    def after_an_activation(collection_id: int, number: int) -> bool:
        with Home.open(home.path) as other:
            activate(other, "default", number)
        return mark_removed(collection_id, number)

    monkeypatch.setattr(home.catalogue.generations, "mark_removed", after_an_activation)
    grow(home, shop, encoder_dir, 1)
    assert active(home) == 1 and verify(home, "default", 1) == []


def test_the_last_generation_of_the_former_encoder_is_kept(
    home: Home, shop: Path, encoder_dir: Path, other_encoder_dir: Path
) -> None:
    grow(home, shop, other_encoder_dir, 2)
    grow(home, shop, encoder_dir, KEEP + 1)
    kept = [record.number for record in list_generations(home, "default") if record.status != "removed"]
    assert kept == [2, 4, 5, 6]
    assert activate(home, "default", 2).encoder_id != list_generations(home, "default")[-1].encoder_id
    grow(home, shop, other_encoder_dir, 1)
    kept = [record.number for record in list_generations(home, "default") if record.status != "removed"]
    assert kept == [2, 5, 6, 7]  # 2 served until now


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "neighbours.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_harm_to_any_file_is_found_and_never_activated(
    name: str, harm: str, home: Home, shop: Path, encoder_dir: Path
) -> None:
    grow(home, shop, encoder_dir, 2)
    path = home.generation_directory("default", 1) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if harm == "remove":
        path.unlink()
    else:
        path.write_bytes(bytes(data) if harm == "flip" else bytes(data[:-1]))
    assert verify(home, "default", 2) == []
    problems = verify(home, "default", 1)
    assert len(problems) == 1 and name in problems[0]
    with pytest.raises(CorruptError, match="does not verify"):
        activate(home, "default", 1)
    assert active(home) == 2


def test_a_generation_with_an_earlier_manifest_verifies_and_is_served(
    home: Home, shop: Path, encoder_dir: Path
) -> None:
    grow(home, shop, encoder_dir, 2)
    path = home.generation_directory("default", 1) / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: document[name] for name in document if name not in ("search_parameters", "options")})
    )
    with home.catalogue.write() as connection:
        written = {"manifest_sha256": sha256_of(path)}
        connection.execute(sa.update(generations).where(generations.c.number == 1).values(written))
    assert verify(home, "default", 1) == []
    rollback(home, "default")
    query = (shop / "bag/0000.jpg").read_bytes()
    assert Searcher(home).search_image("default", query).total == 7


def test_a_changed_encoder_is_found(home: Home, shop: Path, encoder_dir: Path) -> None:
    grow(home, shop, encoder_dir, 1)
    (encoder,) = (home.path / "encoders").iterdir()
    text = (encoder / "encoder.json").read_text()
    (encoder / "encoder.json").write_text(text.replace('"stretch"', '"pad"'))
    assert "were changed" in verify(home, "default", 1)[0]


def test_unknown_generations_and_collections_name_what_there_is(home: Home, shop: Path, encoder_dir: Path) -> None:
    grow(home, shop, encoder_dir, 1)
    with pytest.raises(NotFoundError, match="no generation 7; it keeps 1"):
        activate(home, "default", 7)
    with pytest.raises(NotFoundError, match="no collection 'other'; existing ones: default"):
        list_generations(home, "other")


@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "neighbours.npy", "manifest.json", None])
def test_a_damaged_active_generation_is_refused_and_built_again(
    name: str | None, home: Home, shop: Path, encoder_dir: Path
) -> None:
    grow(home, shop, encoder_dir, 2)
    directory = home.generation_directory("default", 2)
    if name is None:
        shutil.rmtree(directory)
    else:
        data = bytearray((directory / name).read_bytes())
        data[-9] ^= 1  # inside a vector, an id, a score or a checksum: the file can still be parsed
        (directory / name).write_bytes(bytes(data))
    query = (shop / "bag/0000.jpg").read_bytes()
    if name != "manifest.json":  # its own checksum is in the catalogue and compared by `verify`
        with pytest.raises(CorruptError, match="differs|cannot be read"):
            Searcher(home).search_image("default", query)
    report = index_source(home, "default", shop)
    assert (report.unchanged, report.generation) == (8, 3)
    assert verify(home, "default", active(home)) == []
    assert Searcher(home).search_image("default", query).total == 8
    assert rollback(home, "default").number == 1
