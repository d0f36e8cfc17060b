"""`index --restore-deleted`, `--restore-replaced` and `--prune`, `items` and `clean`, as they are typed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from indexer.catalogue.home import Home
from indexer.ingest.clean import AGE
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, get_item, put_item
from indexer.search.searcher import Searcher
from tests.commands import json_of, run
from tests.conftest import write_photos
from tests.indexer.ingest.test_clean import age, leave
from tests.indexer.search.pages import jpeg

PHOTOS = 6


@pytest.fixture
def shop(home: Home, tmp_path: Path, encoder_dir: Path) -> Path:
    source = write_photos(tmp_path / "shop", PHOTOS)
    index_source(home, "default", source, encoder_ref=str(encoder_dir), processes=0)
    return source


def succeeded(home: Home, *words: object, stdin: str | None = None) -> tuple[str, str]:
    """Standard output and error of a command that must succeed."""
    done = run(*words, "--home", home.path, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def document(home: Home, *words: object) -> dict[str, Any]:
    found: dict[str, Any] = json_of(*words, "--home", home.path)
    return found


def failed(home: Home, *words: object) -> str:
    done = run(*words, "--home", home.path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    return done.stderr


def ids(home: Home) -> list[str]:
    return [line.partition("\t")[0] for line in succeeded(home, "items", "list")[0].splitlines()]


@pytest.mark.slow
def test_restore_deleted_brings_back_what_index_left_out(home: Home, shop: Path) -> None:
    everything = ids(home)
    delete_item(home, "default", everything[0])
    out, err = succeeded(home, "index", shop)
    assert out.startswith("added 0, updated 0, unchanged 5, rejected 0; 'default' now serves generation 2")
    assert "1 deleted items left out; --restore-deleted brings them back" in err
    assert ids(home) == everything[1:]
    out, err = succeeded(home, "index", shop, "--restore-deleted")
    assert out.startswith("added 1, updated 0, unchanged 5") and "left out" not in err
    assert ids(home) == everything


@pytest.mark.slow
def test_restore_replaced_takes_an_item_from_its_source_again(home: Home, shop: Path) -> None:
    item_id = ids(home)[0]
    put_item(home, Searcher(home), "default", item_id, title="Corrected", attributes={}, images=[jpeg(70)])
    assert "1 items written over HTTP left out; --restore-replaced takes" in succeeded(home, "index", shop)[1]
    assert get_item(home, "default", item_id).title == "Corrected"
    assert document(home, "index", shop, "--restore-replaced")["replaced"] == 0
    restored = get_item(home, "default", item_id)
    assert (restored.title, [image.uri for image in restored.images]) == (None, [str(shop / item_id)])


@pytest.mark.slow
def test_a_moved_source_is_recognised_and_said_so(home: Home, shop: Path, tmp_path: Path) -> None:
    moved = shop.rename(tmp_path / "elsewhere")
    report = document(home, "index", moved)
    assert (report["moved"], report["added"], report["gone"], report["generation"]) == (PHOTOS, 0, 0, 1)
    (moved / "bag").rename(moved / "bags")
    assert "2 photos have moved; their vectors were kept" in succeeded(home, "index", moved)[1]
    assert len(ids(home)) == PHOTOS


@pytest.mark.slow
def test_files_that_are_gone_are_reported_and_prune_removes_them(home: Home, shop: Path) -> None:
    (shop / "bag/0000.jpg").unlink()
    err = succeeded(home, "index", shop)[1]
    assert f"1 stored files are gone, such as {shop / 'bag/0000.jpg'};" in err and "--prune" in err
    assert succeeded(home, "items", "list", "--gone")[0] == f"bag/0000.jpg\t1\t1\t{shop}\n"
    out, _ = succeeded(home, "index", shop, "--prune", "--dry-run")
    assert out == f"bag/0000.jpg\t{shop / 'bag/0000.jpg'}\n1 photos would be removed\n"
    assert len(ids(home)) == PHOTOS
    assert "1 photos removed" in succeeded(home, "index", shop, "--prune")[1]
    assert len(ids(home)) == PHOTOS - 1
    assert document(home, "index", shop, "--prune", "--dry-run") == {"unlisted": [], "dry_run": True}
    assert document(home, "items", "list", "--gone") == {"items": []}


@pytest.mark.slow
def test_prune_refuses_what_looks_like_a_disk_that_is_not_mounted(home: Home, shop: Path) -> None:
    everything = ids(home)
    shutil.rmtree(shop / "bag")
    for dry_run in ([], ["--dry-run"]):
        message = failed(home, "index", shop, "--prune", *dry_run)
        assert "2 of its 6 stored images are no longer listed, more than the limit of 20%" in message
        assert message.endswith("use --prune-limit 0.34\n")
    shutil.rmtree(shop)
    shop.mkdir()
    for dry_run in ([], ["--dry-run"]):
        message = failed(home, "index", shop, "--prune", "--prune-limit", "1", *dry_run)
        assert f"{shop}: lists no image, like a disk that is not mounted; nothing was removed" in message
    shop.rmdir()
    assert "no such folder" in failed(home, "index", shop, "--prune", "--prune-limit", "1")
    assert ids(home) == everything
    assert "give --prune too" in failed(home, "index", shop, "--dry-run")


@pytest.mark.slow
def test_items_are_removed_all_or_none_and_stay_removed(home: Home, shop: Path) -> None:
    everything = ids(home)
    assert "no item 'missing' in this collection" in failed(home, "items", "remove", everything[0], "missing")
    assert "no item_id was given" in failed(home, "items", "remove")
    assert "no-such-file: cannot be read" in failed(home, "items", "remove", "--from", "no-such-file")
    out, _ = succeeded(home, "items", "remove", *everything[:2], "--dry-run")
    assert out.splitlines() == [*everything[:2], "2 items would be removed"]
    assert ids(home) == everything
    assert document(home, "items", "remove", everything[0]) == {"removed": everything[:1], "dry_run": False}
    listed = "\n".join(everything[1:3]) + "\n"
    assert succeeded(home, "items", "remove", "--from", "-", stdin=listed)[0].endswith("2 items removed\n")
    assert ids(home) == everything[3:]
    assert Searcher(home).search_image("default", jpeg(1)).total == 3
    assert document(home, "index", shop)["deleted"] == 3
    assert document(home, "index", shop, "--restore-deleted")["added"] == 3


def test_clean_lists_leftovers_and_then_removes_them(home: Home, shop: Path) -> None:
    put_item(home, Searcher(home), "default", "uploaded", title=None, attributes={}, images=[jpeg(70)])
    put_item(home, Searcher(home), "default", "kept", title=None, attributes={}, images=[jpeg(71)])
    delete_item(home, "default", "uploaded")
    partial = leave(home.path / "blobs/ab" / (".abc-" + "0" * 32))
    age(home.path)
    before = sorted(path for path in home.path.rglob("*") if path.is_file() and "sqlite" not in path.name)
    out, _ = succeeded(home, "clean", "--dry-run")
    size = len(jpeg(70)) + 5
    assert out.splitlines()[-1] == f"2 leftovers would be removed, {size:,} bytes"
    assert sorted(line.partition("\t")[0] for line in out.splitlines()[:-1]) == ["photo", "temporary"]
    assert [path for path in before if not path.exists()] == []
    report = document(home, "clean")
    assert (report["bytes"], report["dry_run"]) == (size, False)
    removed = {Path(left["path"]) for left in report["removed"]}
    assert {path for path in before if not path.exists()} == removed and partial in removed
    assert succeeded(home, "clean")[0] == "0 leftovers removed, 0 bytes\n"
    assert Searcher(home).search_image("default", jpeg(71), k=1).results[0].item_id == "kept"


def test_clean_waits_an_hour_before_it_removes_a_photo(home: Home, shop: Path) -> None:
    put_item(home, Searcher(home), "default", "uploaded", title=None, attributes={}, images=[jpeg(70)])
    delete_item(home, "default", "uploaded")
    assert document(home, "clean")["removed"] == []
    (photo,) = home.path.glob("blobs/*/*")
    moment = photo.stat().st_mtime - AGE - 1
    os.utime(photo, (moment, moment))
    assert [left["kind"] for left in document(home, "clean")["removed"]] == ["photo"]
    assert not photo.exists()
