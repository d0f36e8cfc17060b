"""Homes and comparisons that the indexer's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from indexer.catalogue.home import Home
from indexer.catalogue.schema import images, items, vectors
from indexer.generations.manifest import load_ids
from indexer.ingest.clean import TEMPORARY
from tests.indexer.swapped import drawn, drawn_with_counts, write  # noqa: F401  # fixtures of every test below


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home.open(tmp_path / "home", create=True) as opened:
        yield opened


@pytest.fixture
def any_home(tmp_path: Path, database_url: str) -> Iterator[Home]:
    """A home on SQLite, then one on PostgreSQL."""
    with Home.open(tmp_path / "home", database_url=database_url, create=True) as opened:
        yield opened


def stored(home: Home) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All that is stored of each image, by (item_id, uri): what it says, and its vector."""
    query = (
        sa.select(
            items.c.item_id, images.c.uri, images.c.status, images.c.reason, images.c.sha256, images.c.width,
            items.c.title, items.c.attributes, vectors.c.encoder_id, vectors.c.vector,
        )
        .select_from(images.join(items).outerjoin(vectors))
        .order_by(items.c.item_id, images.c.uri)
    )  # fmt: skip
    with home.catalogue.read() as connection:
        rows = connection.execute(query).all()
    found = {(row[0], row[1]): tuple(row[2:]) for row in rows}
    assert len(found) == len(rows), "an image has more than one vector"
    return found


def served(home: Home, collection: str = "default") -> dict[str, bytes]:
    """The vectors of the active generation's index, by item_id."""
    import faiss

    state = home.catalogue.search_state(collection)
    assert state.generation is not None
    directory = home.generation_directory(collection, state.generation)
    index = faiss.read_index(str(directory / "index.faiss"))
    ids = load_ids(directory)
    names = home.catalogue.items.summaries(ids[:, 1].tolist())
    return {names[int(pk)].item_id: np.asarray(index.reconstruct(place)).tobytes() for place, (_, pk) in enumerate(ids)}


def orphans(home: Home, collection: str = "default") -> list[str]:
    """Blobs without an image, temporary files, and generations that the catalogue does not have."""
    used = {home.uri_path(uri) for uri in home.catalogue.images.uris()}
    blobs = [path for path in home.path.glob("blobs/*/*") if path not in used]
    temporary = [path for path in home.path.rglob(".*") if TEMPORARY.fullmatch(path.name)]
    records = home.catalogue.generations.all(collection)
    kept = {home.generation_directory(collection, record.number) for record in records if record.status != "removed"}
    generations = [path for path in home.generations_directory(collection).glob("[0-9]*") if path not in kept]
    return [str(path) for path in blobs + temporary + generations]
