"""Thumbnails are made once, kept within a bound, and right after the picture has changed."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.decoding import MemoryBudget
from indexer.errors import NotFoundError
from service.thumbnails import SWEEP_SHARE, Thumbnails
from tests.service.conftest import Serve
from training.data.decode import ImageLimits
from training.errors import ImageError


def thumbnails(folder: Path, limit: int = 10**7, max_bytes: int = 10**8) -> Thumbnails:
    return Thumbnails(folder, limit, ImageLimits(max_bytes=max_bytes), MemoryBudget())


def picture(path: Path, seed: int, side: int = 400) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "PNG", compress_level=1)
    return path


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*"))


def test_a_thumbnail_is_made_once_and_then_read(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    first = thumbnails(tmp_path / "kept").get(path, 100)
    (stored,) = kept(tmp_path / "kept")
    assert stored.read_bytes() == first.jpeg
    Image.new("RGB", (1, 1), "red").save(stored, "JPEG")  # what another process would find
    assert thumbnails(tmp_path / "kept").get(path, 100).jpeg == stored.read_bytes()
    assert thumbnails(tmp_path / "kept").get(path, 101).jpeg != stored.read_bytes()


def test_a_changed_picture_gets_another_thumbnail_and_digest(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    made = thumbnails(tmp_path / "kept")
    before = made.get(path, 100)
    picture(path, 2)
    os.utime(path, ns=(1, 1))
    after = made.get(path, 100)
    assert before.sha256 != after.sha256 == made.digest(path)
    assert before.jpeg != after.jpeg


def test_the_folder_stays_within_its_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    size = len(thumbnails(tmp_path / "other").get(picture(tmp_path / "0.png", 0), 200).jpeg)
    limit = (SWEEP_SHARE + 4) * size
    made = thumbnails(folder, limit)
    paths = [picture(tmp_path / f"{n}.png", n) for n in range(2 * SWEEP_SHARE + 10)]
    for number, path in enumerate(paths):
        before = set(kept(folder))
        made.get(path, 200)
        for new in set(kept(folder)) - before:
            os.utime(new, (1000 + number, 1000 + number))
        total = sum(entry.stat().st_size for entry in kept(folder))
        assert total <= limit * (1 + 1 / SWEEP_SHARE)
    names = " ".join(entry.name for entry in kept(folder))
    assert made.digest(paths[-2]) in names
    assert made.digest(paths[0]) not in names


def test_a_damaged_or_half_written_thumbnail_is_made_anew(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 1)
    made = thumbnails(tmp_path / "kept")
    jpeg = made.get(path, 100).jpeg
    (stored,) = kept(tmp_path / "kept")
    for damaged in (b"", jpeg[:100]):
        stored.write_bytes(damaged)
        assert made.get(path, 100).jpeg == jpeg == stored.read_bytes()


def test_many_threads_get_the_same_thumbnail_while_the_folder_is_swept(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{n}.png", n, 100) for n in range(12)]
    expected = {path: thumbnails(tmp_path / "other").get(path, 50).jpeg for path in paths}
    sharing = [thumbnails(tmp_path / "kept", 6 * len(expected[paths[0]])) for _ in range(2)]  # two processes
    barrier = threading.Barrier(8)

    def ask(number: int) -> bool:
        barrier.wait()
        return all(sharing[number % 2].get(path, 50).jpeg == expected[path] for path in paths * 2)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    assert thumbnails(tmp_path / "kept").get(picture(tmp_path / "a.png", 1), 100).jpeg


def test_a_missing_or_huge_file_is_an_error(tmp_path: Path) -> None:
    made = thumbnails(tmp_path / "kept", max_bytes=1000)
    with pytest.raises(NotFoundError):
        made.get(tmp_path / "none.png", 100)
    with pytest.raises(ImageError, match="1000"):
        made.get(picture(tmp_path / "a.png", 1), 100)


def test_the_server_keeps_thumbnails_in_its_home(serve: Serve, home_copy: Path) -> None:
    client = serve(home_copy)
    shown = client.get("/v1/collections/shop/images/1?width=48")
    (stored,) = kept(home_copy / "thumbnails")
    assert stored.read_bytes() == shown.content
    assert shown.headers["etag"] == f'"{stored.name[:32]}-48"'
    again = client.get("/v1/collections/shop/images/1?width=48", headers={"if-none-match": shown.headers["etag"]})
    assert again.status_code == 304


def test_a_server_may_keep_no_thumbnails(serve: Serve, home_copy: Path) -> None:
    assert serve(home_copy, thumbnail_bytes=0).get("/v1/collections/shop/images/1").status_code == 200
    assert not kept(home_copy / "thumbnails")
