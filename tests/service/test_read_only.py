"""A home that cannot be written to: searching and reading work, and writing says why it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from tests.conftest import write_photos
from tests.service.conftest import ITEMS as SHOP
from tests.service.conftest import assert_problem
from tests.service.test_disk_full import ITEMS, SEARCH, mounted, server

# Root may write everywhere, unless it gives that up.
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.geteuid() == 0 else ()


def protect(home: Path) -> None:
    for path in [home, *home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


@pytest.fixture(params=["closed", "in use"])
def protected(request: pytest.FixtureRequest, home_copy: Path, tmp_path: Path) -> Iterator[Path]:
    """A home without write permission; `in use`, with the write-ahead log of a process that has not closed it."""
    home = home_copy
    if request.param == "in use":
        with Home.open(home_copy) as opened:
            opened.catalogue.ensure_collection("in-the-log")
            home = Path(shutil.copytree(home_copy, tmp_path / "copy" / "home"))
        assert (home / "catalogue.sqlite-wal").stat().st_size
    protect(home)
    yield home
    for path in [home, *home.rglob("*")]:
        path.chmod(0o755)


def check(client: httpx.Client, home: Path, photo: bytes) -> None:
    hits = client.post(SEARCH, files={"image": photo}).json()["results"]
    assert len(hits) == 10
    answers = (client.get("/readyz") for _ in range(1000))  # the first may come while the collection is loaded
    assert next(answer.json() for answer in answers if answer.status_code == 200)["read_only"] is True
    item = client.get(f"{ITEMS}/bag/0000").json()
    assert client.get(f"/v1/collections/shop/images/{item['images'][0]['image_id']}").status_code == 200
    assert client.get(f"{ITEMS}/bag/0000/similar").status_code == 200
    for refused in (client.put(f"{ITEMS}/new", files={"image": photo}), client.delete(f"{ITEMS}/bag/0000")):
        found = assert_problem(refused, 503)
        assert found["type"] == "urn:nitamono:problem:read-only" and "read-only" in found["detail"]
    assert client.get("/v1/collections/shop").json()["items"] == SHOP
    log = (home.parent / "server.log").read_text()
    assert "traceback" not in log.lower()


def test_a_server_without_write_permission_searches_and_refuses_writes(protected: Path, photo: bytes) -> None:
    with server(protected, *WITHOUT_RIGHTS) as client:
        check(client, protected, photo)
        names = {entry["name"] for entry in client.get("/v1/collections").json()["collections"]}
    assert ("in-the-log" in names) is ("copy" in protected.parts)


@pytest.mark.slow
def test_a_server_on_a_read_only_file_system_searches_and_refuses_writes(
    home_copy: Path, tmp_path: Path, photo: bytes
) -> None:
    with mounted(tmp_path / "mounted", "-o", "size=32m") as folder:
        shutil.copytree(home_copy, folder, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with server(folder) as client:
            check(client, folder, photo)


@pytest.mark.slow
def test_commands_on_a_read_only_home_read_or_say_why_not(protected: Path, tmp_path: Path, photo: bytes) -> None:
    query = tmp_path / "query.jpg"
    query.write_bytes(photo)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*WITHOUT_RIGHTS, sys.executable, "-m", "service.cli", *map(str, arguments), "--home", str(protected)]
        return subprocess.run(command, capture_output=True, text=True)

    found = run("search", query, "--collection", "shop")
    assert (found.returncode, len(found.stdout.splitlines())) == (0, 10), found.stderr
    assert run("collections").returncode == 0
    for command in (("index", tmp_path, "--collection", "shop"), ("keys", "create", "name"), ("clean",), ("repair",)):
        done = run(*command)
        assert done.returncode == 1, command
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "read-only" in done.stderr or "cannot be written (Permission denied)" in done.stderr


@pytest.mark.slow
def test_changes_by_a_process_that_may_write_are_seen(home_copy: Path, tmp_path: Path, encoder_dir: Path) -> None:
    """Such as a container that mounts the home read-only, beside one that indexes."""
    if not WITHOUT_RIGHTS:
        pytest.skip("only root can write where the server cannot")
    protect(home_copy)
    more = write_photos(tmp_path / "more", 5, start=100)
    with server(home_copy, *WITHOUT_RIGHTS) as client:
        assert client.get("/v1/collections/shop").json()["items"] == SHOP
        with Home.open(home_copy) as home:
            index_source(home, "shop", more, processes=0)
            assert client.get("/v1/collections/shop").json()["items"] == SHOP + 5
        assert client.get("/v1/collections/shop").json()["items"] == SHOP + 5
        photo = next(more.rglob("*.jpg"))
        best = client.post(SEARCH, files={"image": photo.read_bytes()}).json()
        assert best["generation"] == 2 and best["results"][0]["score"] > 0.999
