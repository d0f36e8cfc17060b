"""Damage to generations and stored encoders: never served, and repaired by `index` and `repair`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from indexer.catalogue.home import Home
from indexer.errors import CorruptError
from indexer.generations.store import verify
from indexer.ingest.ingest import index_source
from indexer.ingest.repair import repair
from indexer.search.searcher import Searcher
from tests.conftest import write_photos


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "shop", 6)


@pytest.fixture
def indexed(home: Home, shop: Path, encoder_dir: Path) -> Home:
    index_source(home, "default", shop, encoder_ref=str(encoder_dir), processes=0)
    return home


def flip(path: Path) -> None:
    """Change bytes in the middle of a file, whose size stays."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(byte ^ 0x55 for byte in data[middle : middle + 40])
    path.write_bytes(data)


def harm(home: Home, how: str) -> None:
    directory = home.generation_directory("default", 1)
    if how == "folder deleted":
        shutil.rmtree(directory)
    else:
        flip(directory / how)


def found(home: Home, shop: Path) -> int:
    """Number of photos that find themselves."""
    searcher = Searcher(home)
    photos = sorted(shop.rglob("*.jpg"))
    return sum(
        searcher.search_image("default", photo.read_bytes(), k=1).results[0].item_id == str(photo.relative_to(shop))
        for photo in photos
    )


HARMS = ["index.faiss", "ids.npy", "neighbours.npy", "manifest.json", "folder deleted"]


@pytest.mark.parametrize("how", HARMS)
def test_a_damaged_generation_is_refused_and_index_of_the_unchanged_source_rebuilds_it(
    how: str, indexed: Home, shop: Path
) -> None:
    harm(indexed, how)
    with pytest.raises(CorruptError, match="generation 1 of 'default' is damaged.*nitamono repair"):
        Searcher(indexed).search_image("default", next(shop.rglob("*.jpg")).read_bytes())
    report = index_source(indexed, "default", shop, processes=0)
    assert (report.unchanged, report.generation) == (6, 2)
    assert verify(indexed, "default", 2) == []
    assert found(indexed, shop) == 6


@pytest.mark.parametrize("how", ["index.faiss", "folder deleted"])
def test_repair_rebuilds_without_the_photos(how: str, indexed: Home, shop: Path) -> None:
    harm(indexed, how)
    photos = [photo.read_bytes() for photo in shop.rglob("*.jpg")]
    shutil.rmtree(shop)
    report = repair(indexed)
    assert (report.rebuilt, report.problems) == ({"default": 2}, [])
    searcher = Searcher(indexed)
    assert all(searcher.search_image("default", photo).results[0].score > 0.999 for photo in photos)
    assert [record.status for record in indexed.catalogue.generations.all("default")] == ["removed", "active"]
    assert repair(indexed) == type(report)()


def test_a_damaged_generation_to_roll_back_to_is_removed(indexed: Home, shop: Path) -> None:
    write_photos(shop, 1, start=6)
    index_source(indexed, "default", shop, processes=0)
    harm(indexed, "ids.npy")
    report = repair(indexed)
    assert (report.removed, report.rebuilt) == (["default/1"], {})


@pytest.mark.parametrize("name", ["weights.safetensors", "encoder.json", "card.json"])
def test_a_damaged_stored_encoder_is_restored_from_the_one_with_the_same_id(
    name: str, indexed: Home, shop: Path, encoder_dir: Path, other_encoder_dir: Path
) -> None:
    (copy,) = (indexed.path / "encoders").iterdir()
    flip(copy / name)
    with pytest.raises(CorruptError, match="nitamono repair"):
        Searcher(indexed).search_image("default", next(shop.rglob("*.jpg")).read_bytes())
    for source in (None, other_encoder_dir):
        problems = repair(indexed, source).problems
        assert len(problems) == 1 and "--encoder DIR" in problems[0]
    report = repair(indexed, encoder_dir)
    assert (report.encoders, report.problems, report.rebuilt) == ([copy.name], [], {})
    assert found(indexed, shop) == 6


def test_a_damaged_shipped_encoder_is_restored_by_index_and_repair(home: Home, shop: Path) -> None:
    index_source(home, "default", shop, encoder_ref="pixels", processes=0)
    (copy,) = (home.path / "encoders").iterdir()
    for mend in (
        lambda: repair(home),
        lambda: index_source(home, "default", shop, processes=0),
        lambda: index_source(home, "default", shop, encoder_ref="pixels", processes=0),
    ):
        flip(copy / "encoder.json")
        mend()
        assert home.encoder(copy.name).encoder_id == copy.name
    assert found(home, shop) == 6


def command(home: Home, *options: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "service.cli", "repair", "--home", str(home.path), *map(str, options)]
    return subprocess.run(words, capture_output=True, text=True)


def test_the_command_says_what_it_mended_as_text_and_json(indexed: Home, shop: Path) -> None:
    done = command(indexed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is damaged\n", "")
    write_photos(shop, 1, start=6)
    index_source(indexed, "default", shop, processes=0)
    harm(indexed, "ids.npy")
    flip(indexed.generation_directory("default", 2) / "index.faiss")
    done = command(indexed)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "'default' now serves generation 3, rebuilt", "generation default/1: damaged and not active; removed",
    ]  # fmt: skip
    flip(indexed.generation_directory("default", 3) / "index.faiss")
    assert json.loads(command(indexed, "--json").stdout) == {
        "rebuilt": {"default": 4}, "removed": [], "encoders": [], "problems": [],
    }  # fmt: skip
    assert found(indexed, shop) == 7


def test_the_command_fails_where_an_encoder_cannot_be_restored(indexed: Home, shop: Path, encoder_dir: Path) -> None:
    (copy,) = (indexed.path / "encoders").iterdir()
    flip(copy / "weights.safetensors")
    done = command(indexed)
    assert done.returncode == 1
    assert "give the directory that it was indexed from: `nitamono repair --encoder DIR`" in done.stdout
    assert done.stderr == "nitamono: 1 encoder could not be repaired\n"
    done = command(indexed, "--encoder", encoder_dir)
    assert (done.returncode, done.stdout) == (0, f"encoder {copy.name[:12]}: restored\n")
    assert found(indexed, shop) == 6


def test_the_command_waits_for_nobody_who_is_indexing(indexed: Home) -> None:
    with indexed.lock("collection-default"):
        done = command(indexed)
    assert done.returncode == 1
    assert f"collection-default is being written by process {os.getpid()}" in done.stderr
