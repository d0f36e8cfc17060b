"""A catalogue that is damaged, deleted or replaced, before a start and while it is served: refused in clear words."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.errors import LostCatalogueError
from tests.service.conftest import Serve, assert_problem

PREFIX = "urn:nitamono:problem:"


def overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(0).randbytes(length))


def half(path: Path) -> int:
    return path.stat().st_size // 2


HARMS: dict[str, Callable[[Path], None]] = {
    "header": lambda path: overwrite(path, 0, 100),
    "middle": lambda path: overwrite(path, half(path) - 20_000, 40_000),
    "cut": lambda path: os.truncate(path, half(path)),
    "empty": lambda path: os.truncate(path, 0),
}


def until(client: httpx.Client, kind: str) -> httpx.Response:
    """The first answer of /readyz with this type of problem."""
    answers = (client.get("/readyz") for _ in range(100_000))
    return next(answer for answer in answers if answer.json().get("type") == PREFIX + kind)


@pytest.mark.parametrize("harm", HARMS)
def test_damage_while_serving_is_noticed_and_every_route_that_needs_the_catalogue_says_so(
    harm: str, serve: Serve, home_copy: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr("service.readiness.WATCH_EVERY", 0.05)
    monkeypatch.setattr("service.readiness.REST", 10)
    client = serve(home_copy)
    assert client.get("/v1/collections/shop/items/bag/0000").status_code == 200
    HARMS[harm](home_copy / "catalogue.sqlite")
    caplog.clear()
    until(client, "catalogue-damaged")
    item = "/v1/collections/shop/items/bag/0000"
    answers = [
        client.get("/readyz"), client.get("/v1/collections"), client.get("/v1/collections/shop"), client.get(item),
        client.get(f"{item}/similar"), client.get("/v1/collections/shop/images/1"), client.get("/v1/encoders"),
        client.get("/v1/generations"), client.post("/v1/collections/shop/search", files={"image": photo}),
        client.get("/metrics"), client.put(item, files={"image": photo}), client.delete(item),
    ]  # fmt: skip
    for answer in answers:
        found = assert_problem(answer, 503)
        assert found["type"] == PREFIX + "catalogue-damaged"
        assert "nitamono restore" in found["detail"] and str(home_copy) not in found["detail"]
    assert client.get("/healthz").status_code == client.get("/").status_code == 200
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [(record.exc_info, "is damaged" in record.getMessage()) for record in errors] == [(None, True)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def commands(home: Path) -> list[tuple[object, ...]]:
    photo = home / "none.jpg"
    photo.write_bytes(b"\xff\xd8\xff")
    return [
        ("collections",), ("search", photo), ("repair",), ("backup", "--out", home.parent / "backup"),
        ("serve", "--port", 0), ("index", home.parent), ("keys", "list"),
    ]  # fmt: skip


@pytest.mark.parametrize("harm", ["header", "cut"])
def test_commands_name_the_damage_and_the_way_back_in_one_line(harm: str, home_copy: Path) -> None:
    HARMS[harm](home_copy / "catalogue.sqlite")
    for command in commands(home_copy):
        done = run(*command, "--home", home_copy)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert "catalogue.sqlite is damaged" in done.stderr and "`nitamono restore BACKUP --home HOME`" in done.stderr
    assert not (home_copy.parent / "backup").exists()


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_a_used_home_without_its_catalogue_does_not_get_a_new_one(state: str, home_copy: Path) -> None:
    catalogue = home_copy / "catalogue.sqlite"
    catalogue.unlink()
    if state == "empty":
        catalogue.touch()
    for command in commands(home_copy):
        done = run(*command, "--home", home_copy)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert f"catalogue.sqlite is {state}, but the home has been used" in done.stderr
        assert "nitamono restore" in done.stderr
    assert catalogue.exists() is (state == "empty")


@pytest.mark.parametrize("command", ["repair", "backup"])
def test_repair_and_backup_read_the_whole_catalogue(command: str, home_copy: Path) -> None:
    HARMS["middle"](home_copy / "catalogue.sqlite")
    out = ("--out", home_copy.parent / "backup") if command == "backup" else ()
    done = run(command, *out, "--home", home_copy)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "catalogue.sqlite is damaged" in done.stderr
    assert not (home_copy.parent / "backup").exists()


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.rename(path.with_name("first"))
    path.with_name("copy").rename(path)


LOSSES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "replaced": replace,
    "its log deleted": lambda path: path.with_name("catalogue.sqlite-wal").unlink(),
    "all deleted": lambda path: [each.unlink() for each in path.parent.glob("catalogue.sqlite*")],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_write_to_a_lost_catalogue_is_not_acknowledged(
    loss: str, serve: Serve, home_copy: Path, photo: bytes
) -> None:
    client = serve(home_copy)
    item = "/v1/collections/shop/items/new"
    assert client.put(item, files={"image": photo}).status_code == 201
    LOSSES[loss](home_copy / "catalogue.sqlite")
    for answer in (client.put(item, files={"image": photo}), client.delete(item), client.get("/readyz")):
        found = assert_problem(answer, 503)
        assert found["type"] == PREFIX + "catalogue-lost"
        assert "nitamono restore" in found["detail"]
    assert (home_copy / "catalogue.sqlite").exists() is (loss not in ("deleted", "all deleted"))


def test_a_catalogue_that_is_put_back_is_served_again(serve: Serve, home_copy: Path, photo: bytes) -> None:
    client = serve(home_copy)
    item = "/v1/collections/shop/items/new"
    assert client.put(item, files={"image": photo}).status_code == 201
    path = home_copy / "catalogue.sqlite"
    path.rename(home_copy / "elsewhere")
    assert_problem(client.get(item), 503)
    assert_problem(client.get("/readyz"), 503)
    (home_copy / "elsewhere").rename(path)
    assert client.get(item).status_code == 200
    assert client.put(item, files={"image": photo}).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_a_catalogue_that_is_lost_during_a_write_fails_the_write(home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        with pytest.raises(LostCatalogueError, match="was deleted while it was in use"):
            with home.catalogue.write() as connection:
                connection.exec_driver_sql("DELETE FROM items")
                (home_copy / "catalogue.sqlite").unlink()


def test_damage_is_not_forgotten_and_nothing_is_written_after_it(home_copy: Path) -> None:
    with Home.open(home_copy) as home:
        whole = (home_copy / "catalogue.sqlite").read_bytes()
        HARMS["middle"](home_copy / "catalogue.sqlite")
        with pytest.raises(ValueError, match="is damaged"):
            home.catalogue.database.check()
        with pytest.raises(ValueError, match="is damaged"):
            home.catalogue.ensure_collection("other")
        with (home_copy / "catalogue.sqlite").open("r+b") as file:
            file.write(whole)
        with pytest.raises(ValueError, match="is damaged"):
            home.catalogue.ensure_collection("other")
    with Home.open(home_copy) as home:
        assert home.catalogue.ensure_collection("other")
