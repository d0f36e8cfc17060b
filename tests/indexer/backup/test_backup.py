"""Backing up a home in use, and restoring it elsewhere: searches are equal, damage is named, a kill leaves nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.backup.backup import back_up, unpublished
from indexer.backup.contents import Contents
from indexer.backup.restore import restore
from indexer.catalogue.home import Home
from indexer.errors import BusyError, CorruptError, NotFoundError
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from indexer.ingest.items import delete_item, get_item, put_item
from indexer.search.searcher import Searcher
from tests.commands import run, start
from tests.conftest import draw_photo, write_photos
from tests.indexer.conftest import stored
from tests.indexer.ingest.test_promotion import jpeg
from training.errors import OutputError
from training.reference import describe_encoder

PHOTOS = 8
QUERY = jpeg(3)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Path:
    """A home with photos of a folder, two uploaded items and two generations."""
    folder = tmp_path_factory.mktemp("backup")
    shop = write_photos(folder / "shop", PHOTOS)
    with Home.open(folder / "home", create=True) as home:
        index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
        draw_photo(90).save(shop / "new.jpg")
        index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
        for number in (20, 21):
            put(home, f"upload-{number}", number)
    return folder / "home"


@pytest.fixture
def home(indexed: Path, tmp_path: Path) -> Iterator[Home]:
    shutil.copytree(indexed, tmp_path / "home")
    with Home.open(tmp_path / "home") as opened:
        yield opened


def put(home: Home, item_id: str, number: int) -> None:
    put_item(home, Searcher(home), "default", item_id, title=item_id, attributes={}, images=[jpeg(number)])


def hits(home: Home, data: bytes = QUERY) -> list[tuple[str, float]]:
    page = Searcher(home).search_image("default", data, k=20)
    return [(hit.item_id, hit.score) for hit in page.results]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_restored_home_answers_as_the_first_one(home: Home, tmp_path: Path) -> None:
    report = back_up(home, tmp_path / "backup")
    assert (report.damaged, report.missing) == ([], [])
    assert report.contents.outside == PHOTOS + 1
    assert sum(name.startswith("blobs/") for name in report.contents.files) == 2
    shutil.move(tmp_path / "backup", tmp_path / "elsewhere")
    assert restore(tmp_path / "elsewhere", tmp_path / "new") == report.contents
    with Home.open(tmp_path / "new") as restored:
        assert stored(restored) == stored(home)
        assert hits(restored) == hits(home)
        assert hits(restored, jpeg(20))[0][0] == "upload-20"
        assert [verify(restored, "default", number) for number in (1, 2)] == [[], []]
        put(restored, "later", 30)
        assert get_item(restored, "default", "later")
    with pytest.raises(NotFoundError):
        get_item(home, "default", "later")


def test_what_was_acknowledged_before_is_in_it_and_writers_go_on_meanwhile(home: Home, tmp_path: Path) -> None:
    written: list[str] = []
    removed: list[str] = []
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            number = 40 + len(written)
            put(home, f"during-{number}", number)
            written.append(f"during-{number}")
            if len(written) % 3 == 0:
                delete_item(home, "default", gone := written[-2])
                removed.append(gone)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for attempt in range(4):
            before, deleted = list(written), list(removed)
            report = back_up(home, tmp_path / f"backup-{attempt}")
            assert (report.damaged, report.missing) == ([], [])
            restore(tmp_path / f"backup-{attempt}", tmp_path / f"new-{attempt}")
            with Home.open(tmp_path / f"new-{attempt}") as restored:
                assert verify(restored, "default", 2) == []
                kept = {item_id for item_id, _ in stored(restored)}
                assert set(before) - set(removed) <= kept
                assert not set(deleted) & kept, "a deleted item came back"
                assert {hit for hit, _ in hits(restored)} <= kept
    finally:
        stop.set()
        writer.join()


def test_files_that_are_removed_meanwhile_are_left_out_with_their_rows(home: Home, tmp_path: Path) -> None:
    """Generation 1 goes after the first snapshot: the second one, which counts, no longer has it."""
    collection = home.catalogue.collection_id("default")
    calls = []

    def remove(done: int, of: int) -> None:
        calls.append(of)
        if len(calls) == 1:
            home.catalogue.generations.mark_removed(collection, 1)
            shutil.rmtree(home.generation_directory("default", 1))

    report = back_up(home, tmp_path / "backup", progress=remove)
    assert (report.damaged, report.missing) == ([], [])
    assert not any("generations/000001" in name for name in report.contents.files)
    restore(tmp_path / "backup", tmp_path / "new")
    with Home.open(tmp_path / "new") as restored:
        assert [r.number for r in restored.catalogue.generations.all("default") if r.status != "removed"] == [2]
        assert hits(restored) == hits(home)


def test_damage_of_the_home_itself_is_named_and_the_rest_is_saved(home: Home, tmp_path: Path) -> None:
    blobs = sorted((home.path / "blobs").rglob("*"))
    photos = [path for path in blobs if path.is_file()]
    photos[0].write_bytes(b"damaged")
    photos[1].unlink()
    index = home.generation_directory("default", 1) / "index.faiss"
    index.write_bytes(index.read_bytes()[:-1] + b"?")
    report = back_up(home, tmp_path / "backup")
    assert report.damaged == [
        photos[0].relative_to(home.path).as_posix(),
        "collections/default/generations/000001/index.faiss",
    ]
    assert report.missing == [photos[1].relative_to(home.path).as_posix()]
    restore(tmp_path / "backup", tmp_path / "new")
    with Home.open(tmp_path / "new") as restored:
        assert hits(restored) == hits(home)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_backup_is_refused_with_the_names_of_its_files(home: Home, tmp_path: Path, damage: str) -> None:
    backup = back_up(home, tmp_path / "backup").path
    victim = backup / "collections/default/generations/000002/ids.npy"
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(CorruptError, match=rf"1 of \d+ files do not match.*000002/ids.npy \({damage}\); nothing was"):
        restore(backup, tmp_path / "new")
    assert left(tmp_path) == {"home", "backup"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not the list of a whole backup"),
        ("[]", "not the list of a whole backup"),
        ('{"format": 2}', "format is not 1"),
        ('{"format": 1, "files": {"a": {"size": "big"}}}', "not the list of a whole backup"),
        (
            '{"format": 1, "created_at": "", "database": "sqlite", "outside": 0, '
            '"files": {"../a": {"size": 1, "sha256": ""}}}',
            "lists '../a', which is outside",
        ),
    ],
)
def test_a_list_that_cannot_be_right_is_refused(tmp_path: Path, document: str, message: str) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "backup.json").write_text(document)
    with pytest.raises(CorruptError, match=message):
        restore(tmp_path / "backup", tmp_path / "new")
    assert left(tmp_path) == {"backup"}


def test_nothing_that_exists_is_overwritten(home: Home, tmp_path: Path) -> None:
    backup = back_up(home, tmp_path / "backup").path
    with pytest.raises(OutputError, match="exists; choose a new directory"):
        back_up(home, backup)
    with pytest.raises(OutputError, match="is inside the home"):
        back_up(home, home.path / "backup")
    with pytest.raises(OutputError, match="exists; move it away first"):
        restore(backup, home.path)
    with pytest.raises(NotFoundError, match="no backup at"):
        restore(tmp_path / "none", tmp_path / "new")
    with unpublished(tmp_path / "other"), pytest.raises(BusyError, match="other is being written by another process"):
        back_up(home, tmp_path / "other")
    assert left(tmp_path) == {"home", "backup"}


def test_links_share_what_never_changes_and_the_catalogue_is_copied(home: Home, tmp_path: Path) -> None:
    backup = back_up(home, tmp_path / "backup", link=True).path
    name = "collections/default/generations/000002/index.faiss"
    assert os.path.samefile(home.path / name, backup / name)
    put(home, "later", 33)
    encoder = describe_encoder(home.encoder_directory(home.catalogue.encoders.all()[0].encoder_id))
    home.amend_card(encoder.encoder_id, note="a card is replaced, not written into")
    restore(backup, tmp_path / "new")
    with Home.open(tmp_path / "new") as restored, pytest.raises(NotFoundError):
        get_item(restored, "default", "later")


def test_a_retraining_that_is_running_is_left_out_and_a_finished_one_is_not(home: Home, tmp_path: Path) -> None:
    collection = home.catalogue.collection_id("default")
    for status in ("refused", "running"):
        number = home.catalogue.retrains.add(collection, {})
        folder = home.retrain_directory("default", number)
        folder.mkdir(parents=True)
        (folder / "evidence.json").write_text(status)
        (folder / ".evidence.json-half").write_text("being written")
        if status == "refused":
            home.catalogue.retrains.end(collection, number, "refused", None)
    names = back_up(home, tmp_path / "backup").contents.files
    assert {name for name in names if name.startswith("retrains/")} == {"retrains/default-0001/evidence.json"}


def test_a_catalogue_in_postgresql_is_left_to_its_own_dump(any_home: Home, tmp_path: Path, encoder_dir: Path) -> None:
    index_source(any_home, "default", write_photos(tmp_path / "shop", 4), encoder_ref=str(encoder_dir), processes=0)
    report = back_up(any_home, tmp_path / "backup")
    is_dumped = any_home.catalogue.database.is_postgresql
    assert report.contents.database == ("postgresql" if is_dumped else "sqlite")
    assert ("catalogue.sqlite" not in report.contents.files) == is_dumped
    assert "collections/default/generations/000001/index.faiss" in report.contents.files


def test_the_commands_write_and_restore_and_tell_what_is_not_in_it(home: Home, tmp_path: Path) -> None:
    done = run("backup", "--home", home.path, "--out", tmp_path / "backup", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{PHOTOS + 1} photos and masks are outside the home" in done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["files"] == len(Contents.read(tmp_path / "backup").files)
    done = run("restore", tmp_path / "backup", "--home", tmp_path / "new")
    assert (done.returncode, "restored as of 20" in done.stdout) == (0, True)
    next((home.path / "blobs").rglob("*/*")).unlink()
    done = run("backup", "--home", home.path, "--out", tmp_path / "another")
    assert (done.returncode, "0 damaged and 1 missing files: blobs/" in done.stderr) == (1, True)


KILLS = 20
ALWAYS = 2


@pytest.mark.parametrize("command", ["backup", "restore"])
@pytest.mark.parametrize("trial", [pytest.param(n, marks=() if n < ALWAYS else pytest.mark.soak) for n in range(KILLS)])
def test_a_kill_leaves_nothing_or_all_and_the_next_run_succeeds(
    home: Home, tmp_path: Path, command: str, trial: int
) -> None:
    before = left(tmp_path)
    if command == "restore":
        back_up(home, tmp_path / "backup")
        before = left(tmp_path)
        target = tmp_path / "new"
        arguments = ["restore", str(tmp_path / "backup"), "--home", str(target)]
    else:
        target = tmp_path / "backup"
        arguments = ["backup", "--home", str(home.path), "--out", str(target)]
    process = start(*arguments)
    aside = target.with_name(f".{target.name}.unfinished")
    while process.poll() is None and not aside.exists() and not target.exists():
        time.sleep(0.0002)
    time.sleep(random.Random(trial).uniform(0.0, 0.06))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not target.exists():
        again = run(*arguments)
        assert again.returncode == 0, again.stderr
    assert left(tmp_path) == before | {target.name}
    if command == "backup":
        restore(target, tmp_path / "new")
    with Home.open(tmp_path / "new") as restored:
        assert hits(restored) == hits(home)
