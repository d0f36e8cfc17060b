"""A full disk: 507 with a reason, nothing half-stored, and searching goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from indexer.catalogue.home import Home
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg
from tests.service.conftest import assert_problem
from tests.service.test_durability import start

SEARCH, ITEMS = "/v1/collections/shop/search", "/v1/collections/shop/items"


def noisy(number: int, size: int) -> bytes:
    """A photo of at least this many bytes: a JPEG with what follows its end marker."""
    return jpeg(number) + random.Random(number).randbytes(size)


@contextmanager
def server(home: Path, *wrapper: str) -> Iterator[httpx.Client]:
    process, url = start(home, *wrapper)
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A tmpfs on a folder; skips the test where mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here ({done.stderr.strip()})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def blobs(home: Path) -> set[Path]:
    return {path for path in home.glob("blobs/**/*") if path.is_file()}


def check_refusal(client: httpx.Client, home: Path, refused: httpx.Response, name: str, photo: bytes) -> None:
    found = assert_problem(refused, 507)
    assert found["type"] == "urn:nitamono:problem:disk-full"
    assert "nothing was changed" in found["detail"]
    assert_problem(client.get(f"{ITEMS}/{name}"), 404)
    assert client.post(SEARCH, files={"image": photo}).status_code == 200
    assert client.get("/readyz").status_code == 200
    log = (home.parent / "server.log").read_text()
    assert "traceback" not in log.lower() and "cannot be written" in log


def test_a_photo_that_cannot_be_stored_is_507_and_nothing_is_left_of_it(home_copy: Path, photo: bytes) -> None:
    """The size of files is limited, which fails in the same way as a full disk, and needs no rights."""
    with server(home_copy, "prlimit", f"--fsize={2**19}", "--") as client:
        assert client.put(f"{ITEMS}/small", files={"image": photo}).status_code == 201
        before = blobs(home_copy)
        pair = [("image", ("1.jpg", jpeg(1), "image/jpeg")), ("image", ("2.jpg", noisy(2, 600_000), "image/jpeg"))]
        check_refusal(client, home_copy, client.put(f"{ITEMS}/large", files=pair), "large", photo)
        assert blobs(home_copy) == before
        assert client.put(f"{ITEMS}/next", files={"image": photo}).status_code == 201


def test_a_full_folder_for_temporary_files_is_507(home_copy: Path, photo: bytes) -> None:
    """Parts of a form beyond 1 MiB are kept there until they are complete."""
    with server(home_copy, "prlimit", f"--fsize={2**20}", "--") as client:
        check_refusal(client, home_copy, client.put(f"{ITEMS}/large", files={"image": noisy(2, 2**21)}), "large", photo)
        assert blobs(home_copy) == set()


def test_a_catalogue_that_cannot_grow_is_507_and_keeps_what_was_acknowledged(home_copy: Path, photo: bytes) -> None:
    limit = (home_copy / "catalogue.sqlite").stat().st_size + 64 * 1024
    stored: list[int] = []
    with server(home_copy, "prlimit", f"--fsize={limit}", "--") as client:
        for number in range(500):
            before = blobs(home_copy)
            form = {"title": "long " * 300}
            answer = client.put(f"{ITEMS}/new-{number}", files={"image": jpeg(number)}, data=form)
            if answer.status_code != 201:
                break
            stored.append(number)
        check_refusal(client, home_copy, answer, f"new-{number}", photo)
        assert blobs(home_copy) == before
        assert len(stored) >= 3
        assert_problem(client.delete(f"{ITEMS}/new-0"), 507)
    with Home.open(home_copy) as home:
        home.catalogue.database.check()
        assert all(home.catalogue.items.get("shop", f"new-{number}").images for number in stored)


def test_a_full_file_system_is_507_until_there_is_space(home_copy: Path, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "small").mkdir()
    with mounted(tmp_path / "small" / "home", "-o", "size=6m") as home:
        shutil.copytree(home_copy, home, dirs_exist_ok=True)
        with server(home) as client:
            assert client.put(f"{ITEMS}/first", files={"image": photo}).status_code == 201
            filler = home / "filler"
            fill(filler)
            before = blobs(home)
            check_refusal(client, home, client.put(f"{ITEMS}/new", files={"image": jpeg(7)}), "new", photo)
            assert blobs(home) == before
            assert not list(home.rglob(".*-*"))
            filler.unlink()
            assert client.put(f"{ITEMS}/new", files={"image": jpeg(7)}).status_code == 201


@pytest.mark.slow
def test_index_on_a_full_file_system_says_so_in_one_line_and_keeps_what_is_served(
    home_copy: Path, tmp_path: Path, photo: bytes
) -> None:
    shop = write_photos(tmp_path / "more", 400)
    with mounted(tmp_path / "home on tmpfs", "-o", "size=6m") as home:
        shutil.copytree(home_copy, home, dirs_exist_ok=True)
        for spare in (0, 200_000, 800_000):  # the disk is full at the first write, in the catalogue, in the generation
            fill(home / "filler", spare=spare)
            command = [
                sys.executable,
                "-m",
                "service.cli",
                "index",
                str(shop),
                "--home",
                str(home),
                "--collection",
                "shop",
            ]
            done = subprocess.run([*command, "--processes", "0"], capture_output=True, text=True)
            assert done.returncode == 1 or spare, done.stderr
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.startswith("nitamono: ")]
                assert len(lines) == 1 and "cannot be written" in lines[0], done.stderr
                assert "Traceback" not in done.stderr
            (home / "filler").unlink()
            with server(home) as client:
                assert client.post(SEARCH, files={"image": photo}).status_code == 200
        assert subprocess.run(command, capture_output=True).returncode == 0


def fill(path: Path, spare: int = 0) -> None:
    """Fill the file system with a file, but for some bytes."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(max(0, path.stat().st_size - spare))
