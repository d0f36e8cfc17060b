"""Hits, items and thumbnails of photos that were moved or removed while a server runs."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import httpx
import pytest
from PIL import Image

from indexer.catalogue.home import Home
from indexer.ingest.ingest import index_source
from tests.conftest import write_photos
from tests.indexer.search.pages import jpeg
from tests.service.conftest import Serve, assert_problem

PHOTOS = 4


@pytest.fixture
def sources(tmp_path: Path, encoder_dir: Path) -> tuple[Path, Path, Path]:
    """A home, and two folders with the same photos, both indexed: each item has a photo of both."""
    first = write_photos(tmp_path / "first", PHOTOS)
    second = tmp_path / "second"
    shutil.copytree(first, second)
    with Home.open(tmp_path / "home", create=True) as home:
        for source in (first, second):
            index_source(home, "shop", source, encoder_ref=str(encoder_dir), processes=0)
    return tmp_path / "home", first, second


def hits(client: httpx.Client) -> dict[str, str]:
    """The image_url of each item."""
    answer = client.post("/v1/collections/shop/search", files={"image": jpeg(0)}, data={"k": "10"})
    assert answer.status_code == 200, answer.text
    return {hit["item_id"]: hit["image_url"] for hit in answer.json()["results"]}


@pytest.mark.parametrize("removed", [0, 1])
def test_a_hit_shows_a_photo_that_exists(sources: tuple[Path, Path, Path], serve: Serve, removed: int) -> None:
    home, *folders = sources
    client = serve(home)
    before = hits(client)
    assert len(before) == PHOTOS
    shutil.rmtree(folders[removed])
    for item_id, url in hits(client).items():
        shown = client.get(url)
        assert shown.status_code == 200
        assert Image.open(io.BytesIO(shown.content)).size == (96, 128)
        first, second = client.get(f"/v1/collections/shop/items/{item_id}").json()["images"]
        assert first["image_url"] == url
        other = client.get(second["image_url"])  # a page that was loaded before still shows a picture
        assert (other.status_code, other.headers["etag"]) == (200, shown.headers["etag"])
        assert client.get(second["image_url"], headers={"If-None-Match": other.headers["etag"]}).status_code == 304
    shutil.rmtree(folders[1 - removed])
    for url in hits(client).values():
        assert_problem(client.get(url), 404)


def test_a_running_server_shows_photos_at_their_new_place(tmp_path: Path, encoder_dir: Path, serve: Serve) -> None:
    source = write_photos(tmp_path / "first", PHOTOS)
    with Home.open(tmp_path / "home", create=True) as home:
        index_source(home, "shop", source, encoder_ref=str(encoder_dir), processes=0)
        client = serve(tmp_path / "home")
        assert len(hits(client)) == PHOTOS
        source = source.rename(tmp_path / "second")
        assert index_source(home, "shop", source, processes=0).moved == PHOTOS
        assert all(client.get(url).status_code == 200 for url in hits(client).values())
        (source / "bag").rename(source / "bags")
        assert index_source(home, "shop", source, processes=0).moved == 2
        (source / "mug/0002.jpg").unlink()
        assert index_source(home, "shop", source, prune=True, prune_limit=0.25, processes=0).pruned == 1
    found = hits(client)
    assert set(found) == {"bags/0000.jpg", "bags/0003.jpg", "hat/0001.jpg"}
    assert all(client.get(url).status_code == 200 for url in found.values())
